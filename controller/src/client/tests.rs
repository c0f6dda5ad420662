use super::*;

const NOW: UnixMillis = UnixMillis(1000);
const END: UnixMillis = UnixMillis(9000);

fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn key(number: u8) -> KeyHash {
    KeyHash([number; 32])
}

/// At the cloud, and the same at an edge.
fn let_in(ks: &Keyspace, who: &str) -> Vec<u8> {
    let [cloud, edge] = [PREFIX, SHARED].map(|prefix| {
        let clients = Clients::load(prefix, ks);
        (0..=20).filter(|number| clients.has(&id(who), &key(*number))).collect::<Vec<u8>>()
    });
    assert_eq!(cloud, edge, "{who}");
    cloud
}

#[test]
fn one_certificate_is_revoked_or_all_that_there_are_and_what_is_issued_later_counts() {
    let (mut ks, mapper) = (Keyspace::new(), id("mapper/modbus"));
    put(&mapper, key(1), END, &mut ks, NOW).unwrap();
    put(&mapper, key(2), END, &mut ks, NOW).unwrap();
    assert_eq!(let_in(&ks, "mapper/modbus").len(), 21, "a list is no condition");
    revoke(&mapper, Some("0101"), &mut ks, NOW).unwrap();
    assert!(!let_in(&ks, "mapper/modbus").contains(&1));
    assert!(let_in(&ks, "mapper/modbus").contains(&3));
    let unknown = ClientError::Unknown { who: mapper.clone(), id: "ff".into() };
    assert_eq!(revoke(&mapper, Some("ff"), &mut ks, NOW), Err(unknown));
    revoke(&mapper, None, &mut ks, NOW).unwrap();
    assert!(let_in(&ks, "mapper/modbus").is_empty());
    assert_eq!(let_in(&ks, "mapper/other").len(), 21);
    put(&mapper, key(4), END, &mut ks, NOW).unwrap();
    assert_eq!(let_in(&ks, "mapper/modbus"), [4]);
    // One of whom nothing was written down.
    revoke(&id("user/app"), None, &mut ks, NOW).unwrap();
    assert!(let_in(&ks, "user/app").is_empty());
}

#[test]
fn a_list_is_bounded_and_what_was_revoked_stays_out() {
    let (mut ks, mapper) = (Keyspace::new(), id("mapper/modbus"));
    for number in 0..16 {
        put(&mapper, key(number), END, &mut ks, NOW).unwrap();
    }
    assert_eq!(put(&mapper, key(16), END, &mut ks, NOW), Err(ClientError::TooMany(mapper.clone())));
    revoke(&mapper, Some("0505"), &mut ks, NOW).unwrap();
    put(&mapper, key(16), END, &mut ks, NOW).unwrap();
    let expected: Vec<u8> = (0..=20).filter(|number| *number != 5).collect();
    assert_eq!(let_in(&ks, "mapper/modbus"), expected, "nobody else is cut off for that");
    let refused = Err(ClientError::Revoked(mapper.clone()));
    assert_eq!(put(&mapper, key(5), END, &mut ks, NOW), refused, "nothing brings it back");
    // What has ended makes room.
    put(&mapper, key(17), UnixMillis(99_000), &mut ks, END).unwrap();
    assert_eq!(list(PREFIX, &ks).unwrap()[0].certificates.len(), 1);
    assert_eq!(list(SHARED, &ks), Ok(Vec::new()));
}

#[test]
fn who_revokes_one_by_one_is_told_when_it_is_too_much() {
    let (mut ks, mapper) = (Keyspace::new(), id("mapper/modbus"));
    for number in 100..148 {
        put(&mapper, key(number), END, &mut ks, NOW).unwrap();
        revoke(&mapper, Some(&format!("{number:02x}")), &mut ks, NOW).unwrap();
    }
    let refused = Err(ClientError::TooManyRevoked(mapper.clone()));
    assert_eq!(put(&mapper, key(1), END, &mut ks, NOW), refused);
    assert_eq!(let_in(&ks, "mapper/modbus").len(), 21);
    revoke(&mapper, None, &mut ks, NOW).unwrap();
    put(&mapper, key(1), END, &mut ks, NOW).unwrap();
    assert_eq!(let_in(&ks, "mapper/modbus"), [1]);
}

#[test]
fn edges_are_told_of_revoked_ones_alone_and_many_clients_keep_nobody_from_being_revoked() {
    let mut ks = Keyspace::new();
    let mapper = |number: usize| id(&format!("mapper/m-{number}"));
    for number in 0..MAX_CLIENTS {
        let certificates = vec![Certificate {
            key: key(1),
            issued: UnixMillis(number as u64),
            not_after: END,
            revoked: None,
        }];
        record::put(
            &mut ks,
            &row(&mapper(number)),
            &Client { who: mapper(number), certificates, revoked: None },
        );
    }
    revoke(&mapper(0), Some("01"), &mut ks, NOW).unwrap();
    revoke(&id("mapper/unlisted"), None, &mut ks, NOW).unwrap();
    put(&id("mapper/another"), key(2), END, &mut ks, NOW).unwrap();
    assert_eq!(ks.range(PREFIX).count(), MAX_CLIENTS);
    assert!(let_in(&ks, "mapper/unlisted").is_empty());
    assert!(!let_in(&ks, "mapper/m-0").contains(&1), "a revoked one is not forgotten");
    assert!(ks.get(&row(&mapper(1))).is_none(), "the oldest of the others is");
    assert_eq!(list(SHARED, &ks).unwrap().len(), 2);
}

#[test]
fn ended_revocations_make_room_for_others_at_edges() {
    let mut ks = Keyspace::new();
    for number in 0..MAX_REVOKED {
        let who = id(&format!("mapper/m-{number}"));
        put(&who, key(1), END, &mut ks, NOW).unwrap();
        revoke(&who, Some("01"), &mut ks, NOW).unwrap();
    }
    let late = id("mapper/late");
    assert_eq!(revoke(&late, None, &mut ks, NOW), Err(ClientError::Full));
    assert_eq!(let_in(&ks, "mapper/late").len(), 21, "nothing is half done");
    revoke(&late, None, &mut ks, END).unwrap();
    assert!(let_in(&ks, "mapper/late").is_empty());
    assert_eq!(ks.range(SHARED).count(), MAX_REVOKED);
}

#[test]
fn nodes_and_users_with_a_role_are_elsewhere_and_a_damaged_row_lets_nobody_in() {
    let mut ks = Keyspace::new();
    let refused = ClientError::NoClient(id("edge/a"));
    assert_eq!(revoke(&id("edge/a"), None, &mut ks, NOW), Err(refused));
    let alice = user::User {
        name: bus::Name::new("alice").unwrap(),
        role: crate::role::Role::Viewer,
        key: key(1),
        not_after: END,
        revoked: None,
    };
    user::put(&alice, false, &mut ks).unwrap();
    let refused = ClientError::IsUser(id("user/alice"));
    assert_eq!(revoke(&id("user/alice"), None, &mut ks, NOW), Err(refused));
    for prefix in [PREFIX, SHARED] {
        let damaged = bytes::Bytes::from_static(&[0xff]);
        ks.put(record::own_key(&format!("{prefix}mapper/eve")), damaged);
    }
    assert!(let_in(&ks, "mapper/eve").is_empty());
}
