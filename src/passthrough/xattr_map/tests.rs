use std::ffi::CString;

use super::*;

/// What the guest is answered when it names an attribute, as text.
fn to_host(map: &XattrMap, name: &str) -> Result<String, Errno> {
    let name = CString::new(name).unwrap();
    map.to_host(XattrName::new(&name).unwrap()).map(|host_name| host_name.to_str().unwrap().into())
}

fn to_guest<'n>(map: &XattrMap, host_name: &'n str) -> Option<&'n str> {
    map.to_guest(host_name.as_bytes()).map(|name| std::str::from_utf8(name).unwrap())
}

const EPERM: Result<&str, Errno> = Err(Errno::EPERM);

/// Rules, then names the guest uses with what becomes of them, then names the host lists with what the guest sees.
type Row<'t> = (&'t str, &'t [(&'t str, Result<&'t str, Errno>)], &'t [(&'t str, Option<&'t str>)]);

fn check(rows: &[Row<'_>]) {
    for (text, guests, hosts) in rows {
        let map = XattrMap::parse(text).unwrap();
        for (name, expected) in *guests {
            assert_eq!(to_host(&map, name), expected.map(String::from), "{text} {name}");
        }
        for (name, expected) in *hosts {
            assert_eq!(to_guest(&map, name), *expected, "{text} {name}");
        }
    }
}

#[test]
fn the_rules_in_the_table_of_the_documentation_do_what_it_says() {
    check(&[
        (
            ":prefix:client:trusted.:user.virtiofs.:",
            &[("trusted.a", Ok("user.virtiofs.trusted.a")), ("user.a", EPERM)],
            &[("user.virtiofs.trusted.a", None)],
        ),
        (
            ":prefix:server::user.virtiofs.:",
            &[("user.a", EPERM)],
            &[("user.virtiofs.trusted.a", Some("trusted.a")), ("user.a", None)],
        ),
        (
            ":prefix:all:trusted.:user.virtiofs.:",
            &[("trusted.a", Ok("user.virtiofs.trusted.a")), ("user.a", EPERM)],
            &[("user.virtiofs.trusted.a", Some("trusted.a")), ("trusted.a", None)],
        ),
        (":ok:client:user.::", &[("user.a", Ok("user.a")), ("trusted.a", EPERM)], &[("user.a", None)]),
        (
            ":ok:server::security.:",
            &[("security.selinux", EPERM)],
            &[("security.selinux", Some("security.selinux")), ("user.a", None)],
        ),
        (":ok:all:::", &[("user.a", Ok("user.a"))], &[("user.a", Some("user.a"))]),
        (":bad:server::security.:", &[], &[("security.selinux", None)]),
    ]);
}

#[test]
fn everything_can_be_moved_under_one_prefix() {
    for text in [":prefix:all::user.virtiofs.::bad:all:::", ":map::user.virtiofs.:"] {
        check(&[(
            text,
            &[
                ("user.a", Ok("user.virtiofs.user.a")),
                ("security.capability", Ok("user.virtiofs.security.capability")),
                ("user.virtiofs.user.a", Ok("user.virtiofs.user.virtiofs.user.a")),
            ],
            &[("user.virtiofs.user.a", Some("user.a")), ("user.a", None), ("security.selinux", None)],
        )]);
    }
    assert_eq!(XattrMap::parse(":prefix:all::user.virtiofs.::bad:all:::"), XattrMap::parse(":map::user.virtiofs.:"),);
}

#[test]
fn one_namespace_can_be_moved_and_its_new_place_is_closed() {
    let written_out = "/prefix/all/trusted./user.virtiofs./
            /bad/server//trusted./
            /bad/client/user.virtiofs.//
            /ok/all///";
    for text in [written_out, "/map/trusted./user.virtiofs./"] {
        check(&[(
            text,
            &[
                ("trusted.a", Ok("user.virtiofs.trusted.a")),
                ("user.virtiofs.trusted.a", EPERM),
                ("user.a", Ok("user.a")),
            ],
            &[("user.virtiofs.trusted.a", Some("trusted.a")), ("trusted.a", None), ("user.a", Some("user.a"))],
        )]);
    }
}

#[test]
fn a_namespace_can_be_hidden() {
    check(&[(
        "/bad/all/security./security./
            /ok/all///",
        &[("security.selinux", EPERM), ("user.a", Ok("user.a"))],
        &[("security.selinux", None), ("user.a", Some("user.a"))],
    )]);
}

#[test]
fn each_type_acts_in_its_scope_alone() {
    let unsupported = Err(Errno::EOPNOTSUPP);
    // With a final rule that passes everything, what is passed was not matched.
    let prefixed = Ok("p.k.a");
    for (kind, client, server) in [
        ("prefix", prefixed, Some("k.a")),
        ("ok", Ok("k.a"), Some("p.k.a")),
        ("bad", EPERM, None),
        ("unsupported", unsupported, None),
    ] {
        for scope in ["client", "server", "all"] {
            let expected_client = if scope == "server" { Ok("k.a") } else { client };
            let expected_server = if scope == "client" { Some("p.k.a") } else { server };
            check(&[(
                &format!(":{kind}:{scope}:k.:p.: :ok:all:::"),
                &[("k.a", expected_client), ("x", Ok("x"))],
                &[("p.k.a", expected_server), ("x", Some("x"))],
            )]);
        }
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    check(&[
        (":ok:all:user.a:user.a::bad:all:user.:user.:", &[("user.a", Ok("user.a")), ("user.b", EPERM)], &[]),
        (":bad:all:user.:user.::ok:all:user.a:user.a:", &[("user.a", EPERM)], &[("user.a", None)]),
    ]);
}

#[test]
fn each_rule_chooses_its_delimiter() {
    let expected = XattrMap::parse(":bad:all:a:b::ok:all:::");
    assert!(expected.is_ok());
    for text in [
        "/bad/all/a/b/,ok,all,,,",
        " :bad:all:a:b: \n\t /ok/all/// \r\n",
        "\u{a7}bad\u{a7}all\u{a7}a\u{a7}b\u{a7}|ok|all|||",
        "\u{b}:bad:all:a:b:\u{a0}xokxallxxx",
    ] {
        assert_eq!(XattrMap::parse(text), expected, "{text:?}");
    }
    // White space within a field belongs to it.
    check(&[(":ok:all: a: :", &[(" a", Ok(" a")), ("a", EPERM)], &[(" x", Some(" x")), ("x", None)])]);
}

#[test]
fn a_wrong_map_is_refused_in_one_line_that_says_where() {
    for (text, message) in [
        ("", "there is no rule in it"),
        (" \n", "there is no rule in it"),
        (":prefx:all:::", "rule 1, character 2: unknown type \"prefx\", expected prefix, ok, bad, unsupported or map"),
        (":OK:all:::", "rule 1, character 2: unknown type \"OK\", expected prefix, ok, bad, unsupported or map"),
        ("/ok/both///", "rule 1, character 5: unknown scope \"both\", expected client, server or all"),
        (":ok:a\nll:::", "rule 1, character 5: unknown scope \"a\\nll\", expected client, server or all"),
        (":prefix:client:hi", "rule 1, character 16: the field \"key\" is not closed by ':'"),
        (":ok:all:::\n:bad:all::", "rule 2, character 22: the field \"prepend\" is not closed by ':'"),
        (":ok:all:::x", "rule 2, character 12: the field \"type\" is not closed by 'x'"),
        ("\u{a7}ok\u{a7}all\u{a7}", "rule 1, character 9: the field \"key\" is not closed by '\u{a7}'"),
        (":ok:all:a\0b::", "rule 1, character 9: a name cannot hold a NUL"),
        (":ok:all::a\0:", "rule 1, character 10: a name cannot hold a NUL"),
        (":map:t.:u.: :ok:all:::", "rule 1, character 2: a rule of type map must be the last one"),
        (":bad:all:x:x::map:t.:u.::map:t.:u.:", "rule 2, character 15: a rule of type map must be the last one"),
    ] {
        let error = XattrMap::parse(text).unwrap_err().to_string();
        assert_eq!(error, format!("xattr map: {message}"), "{text:?}");
        assert_eq!(error.lines().count(), 1, "{text:?}");
    }
}

#[test]
fn a_map_says_whether_it_leaves_names_without_a_rule() {
    for (text, complete) in [
        (":ok:all:::", true),
        (":ok:client::: :bad:server:::", true),
        (":map:trusted.:user.virtiofs.:", true),
        (":prefix:all::user.virtiofs.:", false),
        (":ok:client:::", false),
        (":bad:all:a:a:", false),
    ] {
        assert_eq!(XattrMap::parse(text).unwrap().is_complete(), complete, "{text}");
    }
    assert!(XattrMap::default().is_complete());
}

#[test]
fn a_name_that_outgrows_the_host_is_out_of_range() {
    let map = XattrMap::parse(":map::user.virtiofs.:").unwrap();
    let longest = "x".repeat(255 - "user.virtiofs.".len());
    assert_eq!(to_host(&map, &longest), Ok(format!("user.virtiofs.{longest}")));
    assert_eq!(to_host(&map, &format!("{longest}x")), Err(Errno::ERANGE));
    for (prepend, expected) in [(254, Ok(())), (255, Err(Errno::ERANGE)), (5000, Err(Errno::ERANGE))] {
        let map = XattrMap::parse(&format!(":map::{}:", "p".repeat(prepend))).unwrap();
        assert_eq!(to_host(&map, "x").map(drop), expected, "{prepend}");
    }
}

#[test]
fn a_name_that_is_all_prefix_is_not_listed_as_an_empty_one() {
    check(&[(":map::user.virtiofs.:", &[], &[("user.virtiofs.", None), ("user.virtiofs.x", Some("x"))])]);
}

#[test]
fn a_list_is_translated_name_by_name() {
    let map = XattrMap::parse(":map:trusted.:user.virtiofs.:").unwrap();
    let list = b"user.a\0trusted.secret\0user.virtiofs.trusted.b\0security.selinux\0";
    let names: Vec<_> = map.list_to_guest(list).collect();
    assert_eq!(names, [&b"user.a"[..], b"trusted.b", b"security.selinux"]);
    assert_eq!(map.list_to_guest(b"").count(), 0);
}

#[test]
fn without_rules_names_are_passed_as_they_are_and_not_copied() {
    let map = XattrMap::default().with_internal(Internal::new(&[]));
    assert!(map.is_identity());
    let name = c"security.capability";
    let host_name = map.to_host(XattrName::new(name).unwrap()).unwrap();
    assert!(std::ptr::eq(&*host_name, name));
    assert_eq!(to_guest(&map, "user.a"), Some("user.a"));
}

#[test]
fn a_capability_stored_elsewhere_is_known_to_be() {
    for (text, stored) in [
        (":map::user.virtiofs.:", Some("user.virtiofs.security.capability")),
        (":map:security.:user.virtiofs.:", Some("user.virtiofs.security.capability")),
        (":map:trusted.:user.virtiofs.:", None),
        (":bad:all:security.:security.::ok:all:::", None),
        (":unsupported:all:security.:security.::ok:all:::", None),
        (":prefix:server::user.::ok:all:::", None),
        (":prefix:all:::", None),
    ] {
        let map = XattrMap::parse(text).unwrap();
        let name = map.remapped(c"security.capability");
        assert_eq!(name.as_deref(), stored.map(|name| CString::new(name).unwrap()).as_deref(), "{text}");
        assert_eq!(map.remaps(c"security.capability"), stored.is_some(), "{text}");
    }
    assert!(!XattrMap::default().remaps(c"security.capability"));
}

#[test]
fn a_guest_cannot_reach_an_internal_attribute_through_any_map() {
    const GUARDED: Internal = Internal::new(&[OVERRIDE, c"user.other"]);
    let reached = "user.ferryfs.override";
    for text in [
        None,
        Some(":ok:all:::"),
        // The prefix completes the guest's name to the guarded one.
        Some(":prefix:all::user.ferryfs.:"),
        Some(":prefix:all::user.:"),
        Some(":prefix:client::u::ok:server:::"),
        Some(":prefix:server::user.: :ok:client:::"),
        Some(":map::user.virtiofs.:"),
        Some(":map:trusted.:user.ferryfs.:"),
    ] {
        let map = text.map_or_else(XattrMap::default, |text| XattrMap::parse(text).unwrap()).with_internal(GUARDED);
        for start in 0..reached.len() {
            let name = &reached[start..];
            if let Ok(host_name) = to_host(&map, name) {
                assert_ne!(host_name, reached, "{text:?} {name}");
            }
        }
        // The bare name, with the terminator that one known guard compared with, and as a host that folds case has it.
        for name in ["user.ferryfs.override", "user.ferryfs.override\0", "USER.FerryFS.Override", "user.other"] {
            assert_eq!(map.to_guest(name.as_bytes()), None, "{text:?} {name:?}");
        }
        let list = b"user.ferryfs.override\0user.other\0user.ferryfs.override\0";
        assert_eq!(map.list_to_guest(list).count(), 0, "{text:?}");
    }
    let map = XattrMap::default().with_internal(GUARDED);
    for name in ["user.ferryfs.override", "user.Ferryfs.OVERRIDE", "user.other"] {
        assert_eq!(to_host(&map, name), Err(Errno::EPERM), "{name}");
    }
    for name in ["user.ferryfs.override2", "user.ferryfs.overrid", "user.ferryfs."] {
        assert_eq!(to_host(&map, name).as_deref(), Ok(name));
    }
}

/// A short name over few letters, so that keys, prefixes and names meet often.
fn random_name(random: &mut fastrand::Rng, lengths: std::ops::Range<usize>) -> String {
    let length = random.usize(lengths);
    std::iter::repeat_with(|| random.choice(['a', 'b', '.']).unwrap()).take(length).collect()
}

#[test]
fn what_a_guest_stores_through_a_map_is_listed_under_the_name_it_chose() {
    let seed = 0x5eed_0001;
    println!("seed {seed:#x}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut moved, mut passed, mut denied) = (0, 0, 0);
    for _ in 0..20_000 {
        let (key, prepend) = (random_name(&mut random, 0..4), random_name(&mut random, 0..4));
        let map = XattrMap::parse(&format!("/map/{key}/{prepend}/")).unwrap();
        let name = random_name(&mut random, 1..8);
        match to_host(&map, &name) {
            Ok(host_name) => {
                assert_eq!(to_guest(&map, &host_name), Some(&*name), "{map:?} {host_name}");
                *(if host_name == name { &mut passed } else { &mut moved }) += 1;
            }
            Err(errno) => {
                assert_eq!(errno, Errno::EPERM);
                assert!(name.starts_with(&prepend) && !name.starts_with(&key), "{map:?} {name}");
                denied += 1;
            }
        }
        // Where everything is moved, the way back is exact too.
        let all = XattrMap::parse(&format!("/map//{prepend}/")).unwrap();
        match to_guest(&all, &name) {
            Some(guest_name) => assert_eq!(to_host(&all, guest_name).as_deref(), Ok(&*name), "{all:?}"),
            None => assert!(!name.starts_with(&prepend) || name == prepend, "{all:?} {name}"),
        }
    }
    assert!(moved > 1000 && passed > 1000 && denied > 100, "{moved} {passed} {denied}");
}

#[test]
fn no_random_map_opens_a_way_to_an_internal_attribute() {
    const GUARDED: Internal = Internal::new(&[c"ab.a", c"a"]);
    let seed = 0x5eed_0002;
    println!("seed {seed:#x}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut stopped = 0;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..random.usize(1..4) {
            let kind = random.choice(["prefix", "ok", "bad", "unsupported"]).unwrap();
            let scope = random.choice(["client", "server", "all"]).unwrap();
            let (key, prepend) = (random_name(&mut random, 0..3), random_name(&mut random, 0..4));
            text += &format!(":{kind}:{scope}:{key}:{prepend}:");
        }
        let open = XattrMap::parse(&text).unwrap().with_internal(Internal::new(&[]));
        let guarded = open.clone().with_internal(GUARDED);
        let name = random_name(&mut random, 1..5);
        match to_host(&open, &name) {
            Ok(host_name) if host_name == "ab.a" || host_name == "a" => {
                assert_eq!(to_host(&guarded, &name), Err(Errno::EPERM), "{text} {name}");
                stopped += 1;
            }
            expected => assert_eq!(to_host(&guarded, &name), expected, "{text} {name}"),
        }
        assert_eq!(to_guest(&guarded, "ab.a"), None, "{text}");
    }
    assert!(stopped > 100, "{stopped}");
}
