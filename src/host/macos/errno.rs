//! macOS error numbers turned into those that guests know. Up to 34 both systems count alike, but for one.
//!
//! A pure table: it asks nothing of the system, and is tested on every host.

macro_rules! numbers {
    ($($name:ident $macos:literal => $told:ident $linux:literal;)*) => {
        /// Linux's number for what macOS numbers `number`; 0 for what macOS does not know.
        pub(super) const fn linux_number(number: i32) -> i32 {
            match number {
                $($macos => $linux,)*
                _ => 0,
            }
        }

        // The left column, against the system's own header: checked where the library is built for it.
        #[cfg(target_os = "macos")]
        const _: () = { $(assert!(libc::$name == $macos, stringify!($name));)* };

        /// Every row: the name and number here, the name and number the guest is told.
        #[cfg(test)]
        const ROWS: &[(&str, i32, &str, i32)] = &[$((stringify!($name), $macos, stringify!($told), $linux)),*];

        // The right column, against Linux's own header: checked where the tests are built for it.
        #[cfg(all(test, target_os = "linux"))]
        const _: () = { $(assert!(libc::$told == $linux, stringify!($told));)* };
    };
}

// Where Linux has no such error, the nearest that a file system call of its own gives.
numbers! {
    EPERM 1 => EPERM 1;
    ENOENT 2 => ENOENT 2;
    ESRCH 3 => ESRCH 3;
    EINTR 4 => EINTR 4;
    EIO 5 => EIO 5;
    ENXIO 6 => ENXIO 6;
    E2BIG 7 => E2BIG 7;
    ENOEXEC 8 => ENOEXEC 8;
    EBADF 9 => EBADF 9;
    ECHILD 10 => ECHILD 10;
    EDEADLK 11 => EDEADLK 35;
    ENOMEM 12 => ENOMEM 12;
    EACCES 13 => EACCES 13;
    EFAULT 14 => EFAULT 14;
    ENOTBLK 15 => ENOTBLK 15;
    EBUSY 16 => EBUSY 16;
    EEXIST 17 => EEXIST 17;
    EXDEV 18 => EXDEV 18;
    ENODEV 19 => ENODEV 19;
    ENOTDIR 20 => ENOTDIR 20;
    EISDIR 21 => EISDIR 21;
    EINVAL 22 => EINVAL 22;
    ENFILE 23 => ENFILE 23;
    EMFILE 24 => EMFILE 24;
    ENOTTY 25 => ENOTTY 25;
    ETXTBSY 26 => ETXTBSY 26;
    EFBIG 27 => EFBIG 27;
    ENOSPC 28 => ENOSPC 28;
    ESPIPE 29 => ESPIPE 29;
    EROFS 30 => EROFS 30;
    EMLINK 31 => EMLINK 31;
    EPIPE 32 => EPIPE 32;
    EDOM 33 => EDOM 33;
    ERANGE 34 => ERANGE 34;
    EAGAIN 35 => EAGAIN 11;
    EINPROGRESS 36 => EINPROGRESS 115;
    EALREADY 37 => EALREADY 114;
    ENOTSOCK 38 => ENOTSOCK 88;
    EDESTADDRREQ 39 => EDESTADDRREQ 89;
    EMSGSIZE 40 => EMSGSIZE 90;
    EPROTOTYPE 41 => EPROTOTYPE 91;
    ENOPROTOOPT 42 => ENOPROTOOPT 92;
    EPROTONOSUPPORT 43 => EPROTONOSUPPORT 93;
    ESOCKTNOSUPPORT 44 => ESOCKTNOSUPPORT 94;
    ENOTSUP 45 => EOPNOTSUPP 95;
    EPFNOSUPPORT 46 => EPFNOSUPPORT 96;
    EAFNOSUPPORT 47 => EAFNOSUPPORT 97;
    EADDRINUSE 48 => EADDRINUSE 98;
    EADDRNOTAVAIL 49 => EADDRNOTAVAIL 99;
    ENETDOWN 50 => ENETDOWN 100;
    ENETUNREACH 51 => ENETUNREACH 101;
    ENETRESET 52 => ENETRESET 102;
    ECONNABORTED 53 => ECONNABORTED 103;
    ECONNRESET 54 => ECONNRESET 104;
    ENOBUFS 55 => ENOBUFS 105;
    EISCONN 56 => EISCONN 106;
    ENOTCONN 57 => ENOTCONN 107;
    ESHUTDOWN 58 => ESHUTDOWN 108;
    ETOOMANYREFS 59 => ETOOMANYREFS 109;
    ETIMEDOUT 60 => ETIMEDOUT 110;
    ECONNREFUSED 61 => ECONNREFUSED 111;
    ELOOP 62 => ELOOP 40;
    ENAMETOOLONG 63 => ENAMETOOLONG 36;
    EHOSTDOWN 64 => EHOSTDOWN 112;
    EHOSTUNREACH 65 => EHOSTUNREACH 113;
    ENOTEMPTY 66 => ENOTEMPTY 39;
    EPROCLIM 67 => EAGAIN 11;
    EUSERS 68 => EUSERS 87;
    EDQUOT 69 => EDQUOT 122;
    ESTALE 70 => ESTALE 116;
    EREMOTE 71 => EREMOTE 66;
    EBADRPC 72 => EIO 5;
    ERPCMISMATCH 73 => EIO 5;
    EPROGUNAVAIL 74 => EIO 5;
    EPROGMISMATCH 75 => EIO 5;
    EPROCUNAVAIL 76 => EIO 5;
    ENOLCK 77 => ENOLCK 37;
    ENOSYS 78 => ENOSYS 38;
    EFTYPE 79 => EINVAL 22;
    EAUTH 80 => EACCES 13;
    ENEEDAUTH 81 => EACCES 13;
    EPWROFF 82 => EIO 5;
    EDEVERR 83 => EIO 5;
    EOVERFLOW 84 => EOVERFLOW 75;
    EBADEXEC 85 => ENOEXEC 8;
    EBADARCH 86 => ENOEXEC 8;
    ESHLIBVERS 87 => ENOEXEC 8;
    EBADMACHO 88 => ENOEXEC 8;
    ECANCELED 89 => ECANCELED 125;
    EIDRM 90 => EIDRM 43;
    ENOMSG 91 => ENOMSG 42;
    EILSEQ 92 => EILSEQ 84;
    ENOATTR 93 => ENODATA 61;
    EBADMSG 94 => EBADMSG 74;
    EMULTIHOP 95 => EMULTIHOP 72;
    ENODATA 96 => ENODATA 61;
    ENOLINK 97 => ENOLINK 67;
    ENOSR 98 => ENOSR 63;
    ENOSTR 99 => ENOSTR 60;
    EPROTO 100 => EPROTO 71;
    ETIME 101 => ETIME 62;
    EOPNOTSUPP 102 => EOPNOTSUPP 95;
    ENOPOLICY 103 => EOPNOTSUPP 95;
    ENOTRECOVERABLE 104 => ENOTRECOVERABLE 131;
    EOWNERDEAD 105 => EOWNERDEAD 130;
    EQFULL 106 => EBUSY 16;
    ENOTCAPABLE 107 => EPERM 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_macos_has_exactly_one_row() {
        let numbers: Vec<_> = ROWS.iter().map(|row| row.1).collect();
        assert_eq!(numbers, (1..=107).collect::<Vec<_>>());
        for &(name, here, _, told) in ROWS {
            assert_eq!(linux_number(here), told, "{name}");
        }
    }

    #[test]
    fn what_has_a_name_on_both_systems_keeps_it() {
        for &(name, _, told, linux) in ROWS {
            let renamed = ["ENOTSUP", "EPROCLIM", "EBADRPC", "ERPCMISMATCH", "EPROGUNAVAIL", "EPROGMISMATCH"]
                .into_iter()
                .chain(["EPROCUNAVAIL", "EFTYPE", "EAUTH", "ENEEDAUTH", "EPWROFF", "EDEVERR", "EBADEXEC", "EBADARCH"])
                .chain(["ESHLIBVERS", "EBADMACHO", "ENOATTR", "ENOPOLICY", "EQFULL", "ENOTCAPABLE"])
                .any(|other| other == name);
            assert!(renamed || name == told, "{name} {told}");
            assert!((1..=133).contains(&linux), "{name} is told as {linux}, which Linux does not know");
        }
    }

    #[test]
    fn the_numbers_that_guests_act_on_are_theirs() {
        // Linux's number 11 is macOS's EDEADLK: untranslated, a deadlock would read as "try again".
        for (here, told) in [(11, 35), (35, 11), (62, 40), (63, 36), (66, 39), (69, 122), (70, 116), (93, 61), (45, 95)]
        {
            assert_eq!(linux_number(here), told, "{here}");
        }
    }

    #[test]
    fn a_number_unknown_to_macos_is_no_number() {
        for number in [0, -1, 108, 511, i32::MAX, i32::MIN] {
            assert_eq!(linux_number(number), 0);
        }
    }
}
