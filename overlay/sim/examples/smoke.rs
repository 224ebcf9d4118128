//! Smoke.
use canopy_sim::world::*;use canopy_sim::net::NetConfig;use canopy_core::preset::Preset;use canopy_core::node::Role;use std::time::*;
fn main(){
 let a:Vec<String>=std::env::args().collect();
 let n:u32=a[1].parse().unwrap();let secs:u64=a[2].parse().unwrap();let wide=a[3]=="wan";
 let preset=match a[4].as_str(){"local"=>Preset::Local,"lan"=>Preset::Lan,_=>Preset::Wan};
 let net=NetConfig{wide,..Default::default()};
 let mut w=World::new(WorldConfig{net,preset,topology:canopy_proto::wire::Topology::Elected,ratio:40,cache:200,max_leaves:50000,floor_bps:5_000_000,bootstraps:8,operator:None,peers:n},1);
 for i in 0..n{w.add(|s|if i<8{s.nat=canopy_sim::net::Nat::Open});}
 let t=Instant::now();
 for i in 0..n{w.start(i);}
 eprintln!("started {:?}",t.elapsed());
 for s in 0..secs{ w.run(Duration::from_secs(1)); 
  if s%10==9 {let homed=w.peers().iter().filter(|p|p.homes==2).count();
  eprintln!("{:5} s wall {:6.1?} ev {} q {:?} sn {} dep {} cand {} homed {} refusedhs {} mr {} dig {}",s+1,t.elapsed(),w.events(),w.backlog(),w.with_role(Role::SuperNode).len(),w.with_role(Role::Deputy).len(),w.with_role(Role::Candidate).len(),homed,w.refused(),w.mandates_refused(),w.digest());
  let mut ev=std::collections::BTreeMap::new(); for x in w.take_noticed(){ let k=format!("{:?}",x.event); if std::env::var("V").is_ok() {eprintln!("{} {} {}",x.at/1000,x.peer,k);}let k=k.split(|c:char|!c.is_alphanumeric()).next().unwrap().to_string();*ev.entry(k).or_insert(0)+=1;} eprintln!("      {ev:?}");}
 }
 for (k,v) in &w.traffic().by_kind{eprintln!("{k:20} {:9} {:12}",v.0,v.1);}
}
