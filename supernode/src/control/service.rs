//! The calls of the API.

use std::sync::Arc;

use canopy_overlay::calls::Calls;
use canopy_proto::control as pb;
use canopy_proto::control::control_server::Control;
use canopy_proto::control::explain_election_request::Which;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::desk::Desk;
use super::hot::Wanted;
use super::list::Query;
use super::overview::overview;
use super::rebalance::Plans;
use super::shards::{self, Shards};
use super::survey::{Member, Picture};
use super::watch::{Gate, Stream, events, loads};
use super::{access, act, convert, enact, explain, leaves, locate, placement};
use crate::event::unix_ms;
use crate::host::Host;

/// Answers the calls of `canopy.control.v1` from a host.
#[derive(Debug)]
pub(super) struct Service {
    host: Host,
    desk: Arc<Desk>,
    gate: Gate,
    plans: Plans,
}

impl Service {
    /// `closed` turns true when the control plane closes: then streams end.
    pub(super) fn new(host: Host, closed: watch::Receiver<bool>) -> Self {
        Self {
            desk: Desk::of(&host),
            gate: Gate::new(closed),
            plans: Plans::default(),
            host,
        }
    }

    async fn picture(&self) -> Result<Arc<Picture>, Status> {
        let picture = self.desk.survey.take().await;
        picture.ok_or_else(closing)
    }

    async fn shards(&self) -> Result<Shards, Status> {
        let members = self.members().await?;
        Ok(self.desk.shards.take(members.iter()).await)
    }

    async fn members(&self) -> Result<Vec<Member>, Status> {
        self.desk.survey.members().await.ok_or_else(closing)
    }
}

fn closing() -> Status {
    Status::unavailable("this peer is closing; ask another")
}

#[tonic::async_trait]
impl Control for Service {
    async fn get_overview(
        &self,
        _: Request<pb::GetOverviewRequest>,
    ) -> Result<Response<pb::GetOverviewReply>, Status> {
        let (picture, shards) = tokio::join!(self.picture(), self.shards());
        let (picture, shards) = (picture?, shards?);
        Ok(Response::new(pb::GetOverviewReply {
            network: self.host.network().to_owned(),
            topology: self.host.topology().as_str().to_owned(),
            node_id: self.host.node_id().to_string(),
            role: self.host.role().as_str().to_owned(),
            at_ms: unix_ms(),
            ..overview(&picture, &shards)
        }))
    }

    async fn list_super_nodes(
        &self,
        request: Request<pb::ListSuperNodesRequest>,
    ) -> Result<Response<pb::ListSuperNodesReply>, Status> {
        let query = Query::of(request.into_inner())?;
        let picture = self.picture().await?;
        Ok(Response::new(query.page(&picture)))
    }

    async fn get_super_node(
        &self,
        request: Request<pb::GetSuperNodeRequest>,
    ) -> Result<Response<pb::GetSuperNodeReply>, Status> {
        let picture = self.picture().await?;
        let members = picture.seen.iter().map(|seen| &seen.member);
        let node = convert::find(members, &request.get_ref().node_id)?.node;
        let seen = picture.seen.iter().find(|seen| seen.member.node == node);
        let seen = seen.ok_or_else(closing)?;
        let mut freshness = convert::freshness(&picture);
        let node_id = seen.member.node.to_string();
        freshness
            .missing
            .retain(|missing| missing.node_id == node_id);
        Ok(Response::new(pb::GetSuperNodeReply {
            super_node: Some(convert::super_node(seen, convert::seats(&picture))),
            freshness: Some(freshness),
        }))
    }

    async fn list_elections(
        &self,
        request: Request<pb::ListElectionsRequest>,
    ) -> Result<Response<pb::ListElectionsReply>, Status> {
        let members = self.members().await?;
        let reply = explain::list(&self.host, &members, request.get_ref()).await?;
        Ok(Response::new(reply))
    }

    async fn explain_election(
        &self,
        request: Request<pb::ExplainElectionRequest>,
    ) -> Result<Response<pb::ExplainElectionReply>, Status> {
        let members = self.members().await?;
        let term = match request.into_inner().which {
            Some(Which::Term(term)) => term,
            Some(Which::NodeId(text)) => convert::find(&members, &text)?.term,
            None => return Err(Status::invalid_argument("give a term or a node_id")),
        };
        let reply = explain::explain(&self.host, &members, term).await?;
        Ok(Response::new(reply))
    }

    async fn locate(
        &self,
        request: Request<pb::LocateRequest>,
    ) -> Result<Response<pb::LocateReply>, Status> {
        let reply = locate::locate(&self.host, request.into_inner())?;
        Ok(Response::new(reply))
    }

    async fn list_shards(
        &self,
        request: Request<pb::ListShardsRequest>,
    ) -> Result<Response<pb::ListShardsReply>, Status> {
        let query = shards::Query::of(request.get_ref())?;
        Ok(Response::new(query.page(&self.shards().await?)))
    }

    async fn get_shard(
        &self,
        request: Request<pb::GetShardRequest>,
    ) -> Result<Response<pb::GetShardReply>, Status> {
        let shard = shards::wanted(request.get_ref())?;
        Ok(Response::new(shards::get(&self.shards().await?, shard)))
    }

    async fn top_keys(
        &self,
        request: Request<pb::TopKeysRequest>,
    ) -> Result<Response<pb::TopKeysReply>, Status> {
        let wanted = Wanted::of(request.get_ref())?;
        let members = self.members().await?;
        Ok(Response::new(self.desk.hot.take(&wanted, &members).await))
    }

    async fn list_leaves(
        &self,
        request: Request<pb::ListLeavesRequest>,
    ) -> Result<Response<pb::ListLeavesReply>, Status> {
        let query = leaves::Query::of(request.into_inner())?;
        let members = self.members().await?;
        Ok(Response::new(query.page(&self.host, &members).await?))
    }

    async fn explain_placement(
        &self,
        request: Request<pb::ExplainPlacementRequest>,
    ) -> Result<Response<pb::ExplainPlacementReply>, Status> {
        let members = self.members().await?;
        let member = convert::find(&members, &request.get_ref().node_id)?;
        let reply = placement::explain(member, &self.host.placement())?;
        Ok(Response::new(reply))
    }

    type WatchLoadStream = Stream<pb::LoadSample>;

    async fn watch_load(
        &self,
        request: Request<pb::WatchLoadRequest>,
    ) -> Result<Response<Self::WatchLoadStream>, Status> {
        let samples = loads(self.desk.clone(), request.get_ref())?;
        Ok(Response::new(self.gate.admit(samples)?))
    }

    type WatchEventsStream = Stream<pb::WatchEventsReply>;

    async fn watch_events(
        &self,
        request: Request<pb::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let happened = events(self.desk.log.clone(), request.get_ref())?;
        Ok(Response::new(self.gate.admit(happened)?))
    }

    async fn cordon(
        &self,
        request: Request<pb::CordonRequest>,
    ) -> Result<Response<pb::CordonReply>, Status> {
        let caller = access::operator(&request, &request.get_ref().caller)?;
        let reply = act::cordon(&self.host, request.into_inner(), &caller, true)?;
        Ok(Response::new(reply))
    }

    async fn uncordon(
        &self,
        request: Request<pb::CordonRequest>,
    ) -> Result<Response<pb::CordonReply>, Status> {
        let caller = access::operator(&request, &request.get_ref().caller)?;
        let reply = act::cordon(&self.host, request.into_inner(), &caller, false)?;
        Ok(Response::new(reply))
    }

    type DrainStream = Stream<pb::DrainProgress>;

    async fn drain(
        &self,
        request: Request<pb::DrainRequest>,
    ) -> Result<Response<Self::DrainStream>, Status> {
        let caller = access::operator(&request, &request.get_ref().caller)?;
        // Whoever may not watch must not have acted.
        let place = self.gate.place()?;
        let progress = act::drain(&self.host, request.into_inner(), &caller)?;
        Ok(Response::new(self.gate.hold(place, progress)))
    }

    async fn step_down(
        &self,
        request: Request<pb::StepDownRequest>,
    ) -> Result<Response<pb::StepDownReply>, Status> {
        let caller = access::operator(&request, &request.get_ref().caller)?;
        let reply = act::step_down(&self.host, request.get_ref(), &caller)?;
        Ok(Response::new(reply))
    }

    async fn call_election(
        &self,
        request: Request<pb::CallElectionRequest>,
    ) -> Result<Response<pb::CallElectionReply>, Status> {
        let caller = access::operator(&request, &request.get_ref().caller)?;
        let reply = act::call_election(&self.host, request.get_ref(), &caller).await?;
        Ok(Response::new(reply))
    }

    async fn plan_rebalance(
        &self,
        request: Request<pb::PlanRebalanceRequest>,
    ) -> Result<Response<pb::PlanRebalanceReply>, Status> {
        let picture = self.picture().await?;
        let request = request.into_inner();
        let reply = self.plans.plan(&self.host, &picture, request).await?;
        Ok(Response::new(reply))
    }

    async fn apply_rebalance(
        &self,
        request: Request<pb::ApplyRebalanceRequest>,
    ) -> Result<Response<pb::ApplyRebalanceReply>, Status> {
        let caller = access::operator(&request, &request.get_ref().caller)?;
        let request = request.into_inner();
        let reply = self.plans.apply(&self.host, request, &caller).await?;
        Ok(Response::new(reply))
    }

    async fn enact(
        &self,
        request: Request<pb::EnactRequest>,
    ) -> Result<Response<pb::EnactReply>, Status> {
        let caller = access::operator(&request, &request.get_ref().caller)?;
        let reply = enact::enact(&self.host, request.into_inner(), &caller).await?;
        Ok(Response::new(reply))
    }

    async fn list_decrees(
        &self,
        request: Request<pb::ListDecreesRequest>,
    ) -> Result<Response<pb::ListDecreesReply>, Status> {
        let reply = enact::list(&self.host, request.get_ref()).await?;
        Ok(Response::new(reply))
    }

    async fn get_policy(
        &self,
        _: Request<pb::GetPolicyRequest>,
    ) -> Result<Response<pb::GetPolicyReply>, Status> {
        Ok(Response::new(enact::policy(&self.host).await?))
    }
}
