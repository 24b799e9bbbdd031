use super::*;

fn map(rules: &[&str]) -> IdMap {
    IdMap::parse(rules.iter().copied()).unwrap()
}

/// The last number that a user can have.
const LAST: u32 = NO_ID - 1;
const FORBIDDEN: Result<u32, Errno> = Err(Errno::EPERM);

/// Rules, then guest's numbers with the host's for them, then host's numbers with what the guest sees.
type Row<'t> = (&'t [&'t str], &'t [(u32, Result<u32, Errno>)], &'t [(u32, u32)]);

#[test]
fn each_kind_of_rule_translates_its_range_in_its_direction() {
    let rows: &[Row<'_>] = &[
        (
            &["guest:1000:5000:10"],
            &[(999, Ok(999)), (1000, Ok(5000)), (1009, Ok(5009)), (1010, Ok(1010)), (0, Ok(0))],
            &[(5000, 5000), (1000, 1000)],
        ),
        (
            &["host:1000:5000:10"],
            &[(1000, Ok(1000)), (5000, Ok(5000))],
            &[(999, 999), (1000, 5000), (1009, 5009), (1010, 1010)],
        ),
        (
            &["squash-guest:10:7:3"],
            &[(9, Ok(9)), (10, Ok(7)), (11, Ok(7)), (12, Ok(7)), (13, Ok(13))],
            &[(7, 7), (10, 10)],
        ),
        (&["squash-host:10:7:3"], &[(10, Ok(10))], &[(9, 9), (10, 7), (12, 7), (13, 13)]),
        (&["forbid-guest:1:2"], &[(0, Ok(0)), (1, FORBIDDEN), (2, FORBIDDEN), (3, Ok(3))], &[(1, 1), (2, 2)]),
        (
            &["map:0:100000:65536"],
            &[(0, Ok(100_000)), (65_535, Ok(165_535)), (65_536, Ok(65_536))],
            &[(99_999, 99_999), (100_000, 0), (165_535, 65_535), (165_536, 165_536), (0, 0)],
        ),
        // Towards lower numbers, and a range onto part of itself.
        (&["map:5:3:4"], &[(5, Ok(3)), (8, Ok(6)), (3, Ok(3))], &[(3, 5), (6, 8), (7, 7)]),
        // The documentation's way to serve every user by one.
        (
            &["squash-guest:0:1001:4294967295", "host:1001:1000:1"],
            &[(0, Ok(1001)), (1000, Ok(1001)), (LAST, Ok(1001))],
            &[(1001, 1000), (1000, 1000), (0, 0)],
        ),
        // The same numbers in both directions, and neighbours in one.
        (
            &["guest:10:100:5", "host:10:200:5", "forbid-guest:15:1", "squash-guest:9:0:1", "guest:16:300:1"],
            &[(9, Ok(0)), (10, Ok(100)), (14, Ok(104)), (15, FORBIDDEN), (16, Ok(300)), (17, Ok(17))],
            &[(9, 9), (10, 200), (14, 204), (15, 15)],
        ),
    ];
    for (rules, guests, hosts) in rows {
        let map = map(rules);
        assert!(!map.is_identity());
        for (id, expected) in *guests {
            assert_eq!(map.to_host(*id), *expected, "{rules:?} {id}");
        }
        for (id, expected) in *hosts {
            assert_eq!(map.to_guest(*id), *expected, "{rules:?} {id}");
        }
    }
}

#[test]
fn the_identity_keeps_every_number() {
    for identity in [IdMap::identity(), IdMap::default(), map(&[]), map(&["guest:5:6:0"])] {
        assert!(identity.is_identity());
        for id in [0, 1, 1000, 65_534, LAST] {
            assert_eq!(identity.to_host(id), Ok(id));
            assert_eq!(identity.to_guest(id), id);
        }
    }
}

#[test]
fn nobodys_number_never_reaches_the_host() {
    for rules in [&[][..], &["squash-guest:0:1001:4294967295"], &["map:1:0:4294967294"]] {
        assert_eq!(map(rules).to_host(NO_ID), Err(Errno::EINVAL), "{rules:?}");
        assert_eq!(map(rules).to_guest(NO_ID), NO_ID, "{rules:?}");
    }
}

#[test]
fn ranges_may_end_at_the_last_number_and_not_beyond() {
    let whole = map(&["map:0:0:4294967295"]);
    assert_eq!((whole.to_host(0), whole.to_host(LAST), whole.to_guest(LAST)), (Ok(0), Ok(LAST), LAST));
    let last = map(&["guest:4294967294:0:1", "host:0:4294967294:1"]);
    assert_eq!((last.to_host(LAST), last.to_host(LAST - 1), last.to_guest(0)), (Ok(0), Ok(LAST - 1), LAST));
    for rule in [
        "map:4294967295:0:1",
        "map:0:4294967295:1",
        "guest:0:1:4294967295",
        "guest:1:0:4294967295",
        "host:2:0:4294967294",
        "host:0:2:4294967294",
        "squash-guest:4294967295:0:1",
        "squash-guest:0:4294967295:1",
        "squash-host:0:4294967295:1",
        "forbid-guest:4294967295:1",
        "forbid-guest:1:4294967295",
    ] {
        let problem = IdMap::parse([rule]).unwrap_err().problem;
        assert!(matches!(problem, IdProblem::Beyond { .. }), "{rule} {problem:?}");
    }
}

#[test]
fn any_separator_will_do_and_the_type_may_be_in_capitals() {
    let expected = map(&["squash-guest:1:2:3"]);
    for rule in
        ["squash-guest/1/2/3", "Squash-GUEST 1 2 3", "squash-guest\u{a7}1\u{a7}2\u{a7}3", "squash-guest:+1:2:03"]
    {
        assert_eq!(map(&[rule]), expected, "{rule}");
    }
}

#[test]
fn a_wrong_rule_is_refused_in_one_line_that_says_why() {
    const TYPES: &str = "expected guest, host, squash-guest, squash-host, forbid-guest or map";
    for (rule, message) in [
        ("", format!("rule \"\": unknown type \"\", {TYPES}")),
        (":0:1:1", format!("rule \":0:1:1\": unknown type \"\", {TYPES}")),
        ("forbid_guest:0:1", format!("rule \"forbid_guest:0:1\": unknown type \"forbid_guest\", {TYPES}")),
        ("0:1:1", format!("rule \"0:1:1\": unknown type \"0\", {TYPES}")),
        ("map", "rule \"map\": expected map:<guest base>:<host base>:<count>".into()),
        ("map:0:1", "rule \"map:0:1\": expected map:<guest base>:<host base>:<count>".into()),
        ("host:0:1:1:1", "rule \"host:0:1:1:1\": expected host:<host base>:<guest base>:<count>".into()),
        ("forbid-guest:0:1:1", "rule \"forbid-guest:0:1:1\": expected forbid-guest:<guest base>:<count>".into()),
        ("map:0:1:1:", "rule \"map:0:1:1:\": \"\" is not a number from 0 to 4294967295".into()),
        ("map:0/1:1", "rule \"map:0/1:1\": \"0/1\" is not a number from 0 to 4294967295".into()),
        ("map:0:1:-1", "rule \"map:0:1:-1\": \"-1\" is not a number from 0 to 4294967295".into()),
        ("map:0:\n:1", "rule \"map:0:\\n:1\": \"\\n\" is not a number from 0 to 4294967295".into()),
        (
            "map:0:1:4294967296",
            "rule \"map:0:1:4294967296\": \"4294967296\" is not a number from 0 to 4294967295".into(),
        ),
        (
            "forbid-guest:5:4294967291",
            "rule \"forbid-guest:5:4294967291\": 4294967291 ids from 5 on go beyond 4294967294, the last id there is"
                .into(),
        ),
    ] {
        let error = IdMap::parse([rule]).unwrap_err().to_string();
        assert_eq!(error, format!("id map: {message}"));
        assert_eq!(error.lines().count(), 1);
    }
}

#[test]
fn rules_that_overlap_in_one_direction_are_refused() {
    for (rules, overlapped) in [
        (["guest:0:100:10", "forbid-guest:9:1"], Some("guest:0:100:10")),
        (["guest:5:100:10", "squash-guest:0:1:6"], Some("guest:5:100:10")),
        (["guest:5:100:10", "guest:0:200:100"], Some("guest:5:100:10")),
        (["guest:0:100:10", "guest:3:200:2"], Some("guest:0:100:10")),
        (["map:0:100:10", "host:109:0:1"], Some("map:0:100:10")),
        (["map:0:100:10", "map:10:109:10"], Some("map:0:100:10")),
        (["map:0:100:10", "map:0:100:10"], Some("map:0:100:10")),
        (["guest:0:100:10", "forbid-guest:10:1"], None),
        (["guest:5:100:10", "squash-guest:0:1:5"], None),
        (["guest:0:100:10", "host:0:100:10"], None),
        // Two ranges may become the same.
        (["guest:0:100:10", "guest:10:100:10"], None),
        (["guest:5:0:0", "guest:0:5:10"], None),
        (["guest:0:5:10", "guest:5:0:0"], None),
    ] {
        let error = IdMap::parse(rules).err();
        let expected =
            overlapped.map(|rule| IdMapError { rule: rules[1].into(), problem: IdProblem::Overlap(rule.into()) });
        assert_eq!(error, expected, "{rules:?}");
    }
    let message = IdMap::parse(["map:0:5:1", "map:0:6:1"]).unwrap_err().to_string();
    assert_eq!(message, "id map: rule \"map:0:6:1\": overlaps with \"map:0:5:1\"");
}

/// The documentation taken word for word, over the numbers up to 63 and the last ones: a number each, or forbidden.
#[derive(Default)]
struct Model {
    to_host: std::collections::HashMap<u32, Option<u32>>,
    to_guest: std::collections::HashMap<u32, Option<u32>>,
}

impl Model {
    /// Takes a rule, or says that it overlaps.
    fn add(&mut self, kind: &str, base: u32, target: u32, count: u32) -> bool {
        let one_to_one = |offset| Some(target + offset);
        let entries: Vec<(bool, u32, Option<u32>)> = (0..count)
            .flat_map(|offset| match kind {
                "guest" => vec![(true, base + offset, one_to_one(offset))],
                "host" => vec![(false, base + offset, one_to_one(offset))],
                "squash-guest" => vec![(true, base + offset, Some(target))],
                "squash-host" => vec![(false, base + offset, Some(target))],
                "forbid-guest" => vec![(true, base + offset, None)],
                _ => vec![(true, base + offset, one_to_one(offset)), (false, target + offset, Some(base + offset))],
            })
            .collect();
        let side = |to_host| if to_host { &self.to_host } else { &self.to_guest };
        if entries.iter().any(|(to_host, id, _)| side(*to_host).contains_key(id)) {
            return false;
        }
        for (to_host, id, becomes) in entries {
            if to_host { &mut self.to_host } else { &mut self.to_guest }.insert(id, becomes);
        }
        true
    }
}

#[test]
fn any_set_of_rules_translates_as_one_looked_up_number_by_number() {
    let seed = 0x5eed_0003;
    println!("seed {seed:#x}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut refused, mut accepted, mut forbidden) = (0, 0, 0);
    for _ in 0..3000 {
        let mut model = Model::default();
        let mut rules: Vec<String> = Vec::new();
        for _ in 0..random.usize(1..8) {
            let kind = random.choice(["guest", "host", "squash-guest", "squash-host", "forbid-guest", "map"]).unwrap();
            // Near both ends of what there is.
            let mut base = || if random.bool() { random.u32(0..56) } else { LAST - random.u32(8..64) };
            let (base, target) = (base(), base());
            let count = random.u32(0..9);
            let rule = match kind {
                "forbid-guest" => format!("{kind}:{base}:{count}"),
                _ => format!("{kind}:{base}:{target}:{count}"),
            };
            let fits = model.add(kind, base, target, count);
            let result = IdMap::parse(rules.iter().map(String::as_str).chain([&*rule]));
            assert_eq!(result.is_ok(), fits, "{rules:?} {rule}");
            if fits {
                rules.push(rule);
                accepted += 1;
            } else {
                refused += 1;
            }
        }
        let map = IdMap::parse(rules.iter().map(String::as_str)).unwrap();
        for id in (0..72).chain(LAST - 72..=LAST) {
            let expected = model.to_host.get(&id).copied().unwrap_or(Some(id));
            assert_eq!(map.to_host(id), expected.ok_or(Errno::EPERM), "{rules:?} {id}");
            forbidden += u32::from(expected.is_none());
            let expected = model.to_guest.get(&id).copied().flatten().unwrap_or(id);
            assert_eq!(map.to_guest(id), expected, "{rules:?} {id}");
        }
    }
    assert!(refused > 500 && accepted > 5000 && forbidden > 500, "{refused} {accepted} {forbidden}");
}
