use bus::{Name, UnixMillis};
use controller::Plan;
use ipnet::IpNet;
use metadata::{MemoryStore, Revision, Row, Store};

use super::*;
use crate::admin::{AdminRequest, Snapshot, TokenOrder};

const NOW: Now = Now { mono: Mono(0), wall: UnixMillis(1) };

fn cloud() -> Cloud {
    let (name, ca) = (Name::new("water").unwrap(), CaHash::of_der(b"ca"));
    let plan = Plan::new(Plan::DEFAULT_POOL, &name, &ca).unwrap();
    let endpoints = vec!["cloud.example:10001".to_owned()];
    let cloud = Name::new("hub").unwrap();
    let cluster = Cluster { name, cloud, ca_der: Vec::new(), endpoints, plan };
    let settings = CloudSettings { cluster, subnets: CloudSubnets::default(), ca, seed: 1, term: None };
    Cloud::new(settings, Box::new(|_, _| Err(CsrError::Malformed)), Keyspace::new(), NOW).unwrap()
}

fn create_token(cloud: &mut Cloud, id: u64) {
    let site = Name::new("plant").unwrap();
    let lans: Vec<IpNet> = vec!["192.168.1.0/24".parse().unwrap()];
    let order = TokenOrder { site, lans, ttl_seconds: 60, uses: 1 };
    let secret = [u8::try_from(id).unwrap(); bus::JoinToken::SECRET_LEN];
    cloud.handle(Input::Admin { id, request: AdminRequest::CreateToken { order, secret } }, NOW);
}

/// Makes durable what is to be; returns what is said before that, and the last revision.
fn persist(cloud: &mut Cloud, store: &mut MemoryStore) -> (Vec<Output>, Option<Revision>) {
    let (mut said, mut last) = (Vec::new(), None);
    while let Some(output) = cloud.poll_output() {
        if let Output::Persist(commit) = output {
            store.commit(std::slice::from_ref(&commit)).unwrap();
            last = Some(commit.revision);
        } else {
            said.push(output);
        }
    }
    (said, last)
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

#[test]
fn a_backup_is_what_the_disk_holds_and_is_said_once_it_does() {
    let (mut cloud, mut store) = (cloud(), MemoryStore::default());
    create_token(&mut cloud, 1);
    cloud.handle(Input::Backup { id: 2 }, NOW);
    let (said, last) = persist(&mut cloud, &mut store);
    let is_early = said.iter().any(|output| matches!(output, Output::Backup { .. }));
    assert!(!is_early, "{said:?}");
    let on_disk = sorted(store.load().unwrap());

    // What comes later is not in it.
    create_token(&mut cloud, 3);
    cloud.handle(Input::Persisted(last.unwrap()), NOW);
    let (said, _) = persist(&mut cloud, &mut store);
    let backups: Vec<&Output> =
        said.iter().filter(|output| matches!(output, Output::Backup { .. })).collect();
    let identity = "spiffe://water/cloud/hub".parse().unwrap();
    let snapshot = Snapshot { identity, revision: last.unwrap(), epoch: 1, rows: on_disk };
    assert_eq!(backups, [&Output::Backup { id: 2, snapshot }]);
}

#[test]
fn a_cloud_whose_disk_refuses_is_backed_up_all_the_same() {
    let (mut cloud, mut store) = (cloud(), MemoryStore::default());
    cloud.handle(Input::Timeout, NOW);
    cloud.handle(Input::Degraded { why: "no space left".to_owned() }, NOW);
    cloud.handle(Input::Backup { id: 2 }, NOW);
    let (said, _) = persist(&mut cloud, &mut store);
    let revision = cloud.keyspace().revision();
    let is_backup = |output: &Output| matches!(output, Output::Backup { id: 2, snapshot } if snapshot.revision == revision && !snapshot.rows.is_empty());
    assert_eq!(said.iter().filter(|output| is_backup(output)).count(), 1, "{said:?}");
}
