//! The calls of the API.

use canopy_overlay::calls::Calls;
use canopy_proto::control as pb;
use canopy_proto::control::control_server::Control;
use tonic::{Request, Response, Status};

use super::convert;
use super::list::Query;
use super::overview::overview;
use super::survey::{Picture, Survey};
use crate::event::unix_ms;
use crate::host::Host;

/// Answers the calls of `canopy.control.v1` from a host.
#[derive(Debug)]
pub(super) struct Service {
    host: Host,
    survey: Survey,
}

impl Service {
    pub(super) fn new(host: Host) -> Self {
        Self {
            survey: Survey::new(host.clone()),
            host,
        }
    }

    async fn picture(&self) -> Result<Picture, Status> {
        let picture = self.survey.take().await;
        picture.ok_or_else(|| Status::unavailable("this peer is closing; ask another"))
    }
}

#[tonic::async_trait]
impl Control for Service {
    async fn get_overview(
        &self,
        _: Request<pb::GetOverviewRequest>,
    ) -> Result<Response<pb::GetOverviewReply>, Status> {
        let picture = self.picture().await?;
        Ok(Response::new(pb::GetOverviewReply {
            network: self.host.network().to_owned(),
            topology: self.host.topology().as_str().to_owned(),
            node_id: self.host.node_id().to_string(),
            role: self.host.role().as_str().to_owned(),
            at_ms: unix_ms(),
            ..overview(&picture)
        }))
    }

    async fn list_super_nodes(
        &self,
        request: Request<pb::ListSuperNodesRequest>,
    ) -> Result<Response<pb::ListSuperNodesReply>, Status> {
        let query = Query::of(request.into_inner())?;
        Ok(Response::new(query.page(&self.picture().await?)))
    }

    async fn get_super_node(
        &self,
        request: Request<pb::GetSuperNodeRequest>,
    ) -> Result<Response<pb::GetSuperNodeReply>, Status> {
        let picture = self.picture().await?;
        let seen = convert::find(&picture, &request.get_ref().node_id)?;
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
}
