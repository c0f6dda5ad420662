use super::*;
use bus::Mono;
use bus::token::CaHash;

const DAY: u64 = 24 * 3_600_000;

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * 1000), wall: UnixMillis(1_000_000 + ms) }
}

fn plan() -> Plan {
    Plan::new(Plan::DEFAULT_POOL, &Name::new("water").unwrap(), &CaHash::of_der(b"ca")).unwrap()
}

fn spec(lans: &[&str]) -> TokenSpec {
    let lans = lans.iter().map(|net| net.parse().unwrap()).collect();
    TokenSpec { lans, ..TokenSpec::for_site(Name::new("site-a").unwrap()) }
}

fn created(spec: &TokenSpec) -> Result<Token, CreateError> {
    create(spec, &[1; 20], &plan(), &mut Keyspace::new(), at(0))
}

#[test]
fn a_new_token_is_listed_with_its_grants_and_without_its_secret() {
    let mut ks = Keyspace::new();
    let token =
        create(&spec(&["192.168.10.0/24"]), b"12345678901234567890", &plan(), &mut ks, at(0)).unwrap();
    let expected = Token {
        id: JoinToken::id_of(b"12345678901234567890").0,
        site: Name::new("site-a").unwrap(),
        lans: vec!["192.168.10.0/24".parse().unwrap()],
        created: at(0).wall,
        expires: at(DAY).wall,
        uses: 1,
        used_by: vec![],
    };
    assert_eq!(token, expected);
    assert_eq!(list(&ks), Ok(vec![expected]));
    let stored: Vec<u8> = ks.range("/").flat_map(|(_, value)| value.to_vec()).collect();
    assert!(!stored.windows(20).any(|window| window == b"12345678901234567890"));
}

#[test]
fn what_a_token_cannot_allow_is_refused_when_it_is_made() {
    let lan: Lan = "192.168.10.0/25".parse().unwrap();
    let in_pool: Lan = "10.86.7.0/24".parse().unwrap();
    let many: Vec<String> = (0..=MAX_LANS).map(|n| format!("192.168.{n}.0/24")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let ttl = |ttl| TokenSpec { ttl, ..spec(&[]) };
    let uses = |uses| TokenSpec { uses, ..spec(&[]) };
    for (spec, expected) in [
        (ttl(Duration::ZERO), CreateError::Ttl),
        (ttl(MAX_TTL + Duration::from_secs(1)), CreateError::Ttl),
        (uses(0), CreateError::Uses),
        (uses(MAX_USES + 1), CreateError::Uses),
        (spec(&many), CreateError::TooManyLans),
        (spec(&["192.168.10.0/24", "192.168.10.0/25"]), CreateError::LanTwice(lan)),
        (spec(&["10.86.7.0/24"]), CreateError::LanInPool { lan: in_pool, pool: plan().v4().into() }),
        (TokenSpec { uses: 2, ..spec(&["192.168.10.0/24"]) }, CreateError::SharedLan),
    ] {
        assert_eq!(created(&spec), Err(expected));
    }
    let error = created(&spec(&["192.168.10.1/24"])).unwrap_err();
    assert_eq!(error.to_string(), "192.168.10.1/24 has host bits; write 192.168.10.0/24");
}

#[test]
fn a_secret_is_known_until_it_expires_by_the_wall_clock() {
    let mut ks = Keyspace::new();
    let token = create(&spec(&[]), &[1; 20], &plan(), &mut ks, at(0)).unwrap();
    assert_eq!(find(&[1; 19], &ks, at(0)), Err(TokenRefused::Malformed));
    assert_eq!(find(&[2; 20], &ks, at(0)), Err(TokenRefused::Unknown));
    assert_eq!(find(&[1; 20], &ks, at(DAY - 1)), Ok(token.clone()));
    assert_eq!(find(&[1; 20], &ks, at(DAY)), Err(TokenRefused::Expired(token)));
}

#[test]
fn a_revoked_token_is_unknown() {
    let mut ks = Keyspace::new();
    let token = create(&spec(&[]), &[1; 20], &plan(), &mut ks, at(0)).unwrap();
    assert!(revoke(&token.id(), &mut ks));
    assert!(!revoke(&token.id(), &mut ks));
    assert_eq!(find(&[1; 20], &ks, at(0)), Err(TokenRefused::Unknown));
}

#[test]
fn long_expired_tokens_make_room_for_new_ones() {
    let mut ks = Keyspace::new();
    create(&spec(&[]), &[1; 20], &plan(), &mut ks, at(0)).unwrap();
    create(&spec(&[]), &[2; 20], &plan(), &mut ks, at(30 * DAY)).unwrap();
    assert_eq!(list(&ks).unwrap().len(), 2);
    create(&spec(&[]), &[3; 20], &plan(), &mut ks, at(31 * DAY)).unwrap();
    assert_eq!(find(&[1; 20], &ks, at(31 * DAY)), Err(TokenRefused::Unknown));
    assert_eq!(list(&ks).unwrap().len(), 2);
}

#[test]
fn the_number_of_tokens_is_bounded() {
    let mut ks = Keyspace::new();
    let secret = |n: u32| {
        let mut secret = [0; 20];
        secret[..4].copy_from_slice(&n.to_be_bytes());
        secret
    };
    let template = create(&spec(&[]), &secret(0), &plan(), &mut ks, at(0)).unwrap();
    for n in 1..MAX_TOKENS as u32 {
        let token = Token { id: JoinToken::id_of(&secret(n)).0, ..template.clone() };
        record::put(&mut ks, &token.key(), &token);
    }
    let full = create(&spec(&[]), &[9; 20], &plan(), &mut ks, at(0));
    assert_eq!(full, Err(CreateError::TooMany));
}
