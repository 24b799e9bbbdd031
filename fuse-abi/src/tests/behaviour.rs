//! The functions that the description has: what older minors get, both words of INIT flags, records of a listing.

use zerocopy::IntoBytes;

use crate::*;

#[test]
fn an_old_client_gets_the_size_its_minor_knew() {
    // The sizes of each struct, with the minor they begin at.
    type Row = (&'static str, fn(u32) -> usize, &'static [(u32, usize)]);
    let table: [Row; 12] = [
        ("InitIn", InitIn::size_for_minor, &[(0, 8), (6, 16), (36, 64)]),
        ("InitOut", InitOut::size_for_minor, &[(0, 8), (5, 24), (23, 64)]),
        ("EntryOut", EntryOut::size_for_minor, &[(0, 120), (9, 128)]),
        ("AttrOut", AttrOut::size_for_minor, &[(0, 96), (9, 104)]),
        ("StatfsOut", StatfsOut::size_for_minor, &[(0, 48), (4, 80)]),
        ("GetattrIn", GetattrIn::size_for_minor, &[(0, 0), (9, 16)]),
        ("MknodIn", MknodIn::size_for_minor, &[(0, 8), (12, 16)]),
        ("CreateIn", CreateIn::size_for_minor, &[(0, 8), (12, 16)]),
        ("ReadIn", ReadIn::size_for_minor, &[(0, 24), (9, 40)]),
        ("WriteIn", WriteIn::size_for_minor, &[(0, 24), (9, 40)]),
        ("ReleaseIn", ReleaseIn::size_for_minor, &[(0, 16), (8, 24)]),
        ("LkIn", LkIn::size_for_minor, &[(0, 40), (9, 48)]),
    ];
    for (name, size, sizes) in table {
        for minor in 0..=KERNEL_MINOR_VERSION {
            let &(_, expected) = sizes.iter().rfind(|(from, _)| *from <= minor).unwrap();
            assert_eq!(size(minor), expected, "{name} of 7.{minor}");
        }
    }
}

#[test]
fn from_the_oldest_served_minor_only_init_differs() {
    assert_eq!(InitIn::size_for_minor(OLDEST_MINOR), 16);
    assert_eq!(InitOut::size_for_minor(OLDEST_MINOR), size_of::<InitOut>());
    assert_eq!(WriteIn::size_for_minor(OLDEST_MINOR), size_of::<WriteIn>());
    assert_eq!(MknodIn::size_for_minor(OLDEST_MINOR), size_of::<MknodIn>());
}

#[test]
fn the_short_setxattr_begins_like_the_long_one() {
    let long = SetxattrIn { size: 5, flags: 2, setxattr_flags: 1, padding: 0 };
    let short: SetxattrInCompat = read_short(long.as_bytes(), COMPAT_SETXATTR_IN_SIZE).unwrap();
    assert_eq!(short, SetxattrInCompat { size: 5, flags: 2 });
    assert_eq!(SetxattrIn::size_for_flags(InitFlags::all() - InitFlags::SETXATTR_EXT), 8);
    assert_eq!(SetxattrIn::size_for_flags(InitFlags::SETXATTR_EXT), 16);
}

#[test]
fn a_short_struct_is_read_with_zeros_at_its_end() {
    let full = InitIn { major: 7, minor: 31, max_readahead: 9, flags: 5, flags2: 6, unused: [7; 11] };
    let bytes = full.as_bytes();
    let short = InitIn { flags2: 0, unused: [0; 11], ..full };
    assert_eq!(read_short::<InitIn>(&bytes[..15], COMPAT_35_INIT_IN_SIZE), None);
    assert_eq!(read_short(&bytes[..16], COMPAT_35_INIT_IN_SIZE), Some(short));
    assert_eq!(read_short(bytes, COMPAT_35_INIT_IN_SIZE), Some(full));
    let newer = [bytes, &[1; 8]].concat();
    assert_eq!(read_short(&newer, COMPAT_35_INIT_IN_SIZE), Some(full));
}

#[test]
fn the_upper_flags_count_only_when_the_client_says_they_are_there() {
    let (flags, flags2) = (InitFlags::POSIX_ACL | InitFlags::HAS_RESEND).split();
    let mut offer = InitIn { flags, flags2, ..InitIn::default() };
    assert_eq!(offer.init_flags(), InitFlags::POSIX_ACL);
    offer.flags |= InitFlags::INIT_EXT.split().0;
    assert_eq!(offer.init_flags(), InitFlags::POSIX_ACL | InitFlags::HAS_RESEND | InitFlags::INIT_EXT);
}

#[test]
fn a_reply_with_upper_flags_says_that_they_are_there() {
    let mut reply = InitOut::default();
    reply.set_init_flags(InitFlags::POSIX_ACL | InitFlags::SECURITY_CTX);
    let ext = InitFlags::POSIX_ACL | InitFlags::INIT_EXT;
    assert_eq!((reply.flags, reply.flags2), (ext.bits() as u32, 1));
    reply.set_init_flags(InitFlags::POSIX_ACL);
    assert_eq!((reply.flags, reply.flags2), (1 << 20, 0));
}

#[test]
fn a_bit_this_crate_does_not_know_survives() {
    let unknown = InitFlags::join(0, 1 << 31);
    assert_eq!(unknown.split(), (0, 1 << 31));
    assert!((unknown & InitFlags::all()).is_empty());
}

#[test]
fn records_of_a_listing_are_aligned_and_never_overflow() {
    for (namelen, plain, plus) in [(0, 24, 152), (1, 32, 160), (8, 32, 160), (9, 40, 168), (255, 280, 408)] {
        assert_eq!(dirent_size(namelen), Some(plain), "name of {namelen}");
        assert_eq!(direntplus_size(namelen), Some(plus), "name of {namelen}");
    }
    for namelen in [usize::MAX, usize::MAX - 24, usize::MAX - 30] {
        assert_eq!((dirent_size(namelen), direntplus_size(namelen)), (None, None), "name of {namelen}");
    }
    assert_eq!(dirent_size(usize::MAX - 31), Some(usize::MAX - 7));
}

#[test]
fn the_type_in_a_record_is_that_of_the_mode() {
    let types = [(S_IFIFO, 1), (S_IFCHR, 2), (S_IFDIR, 4), (S_IFBLK, 6), (S_IFREG, 8), (S_IFLNK, 10), (S_IFSOCK, 12)];
    for (mode, expected) in types {
        assert_eq!(dirent_type(mode | 0o7777), expected, "mode {mode:o}");
    }
    assert_eq!(dirent_type(!S_IFMT), 0);
}

#[test]
fn codes_come_from_their_numbers_and_from_no_other() {
    for number in 0..=8192 {
        let known = Opcode::ALL.iter().copied().find(|code| code.number() == number);
        assert_eq!(Opcode::try_from(number), known.ok_or(UnknownCode(number)));
        let known = NotifyCode::ALL.iter().copied().find(|code| code.number() == number);
        assert_eq!(NotifyCode::try_from(number), known.ok_or(UnknownCode(number)));
    }
    assert_eq!(Opcode::try_from(INIT_BSWAP_RESERVED), Err(UnknownCode(INIT_BSWAP_RESERVED)));
    assert_eq!(u32::from(Opcode::Init).swap_bytes(), INIT_BSWAP_RESERVED);
    assert_eq!(u32::from(Opcode::CuseInit).swap_bytes(), CUSE_INIT_BSWAP_RESERVED);
}

#[test]
fn a_buffer_index_shares_its_bytes_with_the_pool() {
    let mut command =
        UringCmdReq { bufpool: UringBufpool { uaddr: u64::MAX, len: 1, reserved: 1 }, ..Default::default() };
    command.set_ent_zero_copy_buf_index(0x1234);
    let bytes = command.as_bytes();
    assert_eq!(bytes[24..26], 0x1234_u16.to_ne_bytes());
    assert!(bytes[26..].iter().all(|byte| *byte == 0));
    assert_eq!(command.ent_zero_copy_buf_index(), 0x1234);
}
