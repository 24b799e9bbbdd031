//! Directory entries in the memory of a reply.

use ferryfs::protocol::{Body, DirectoryReply};
use vm_memory::VolatileSlice;

use crate::guest::bytes;
use crate::recorder::ENTRY;

/// What `fill` packs into `room` bytes, and how many of them it used.
fn packed<R>(room: usize, fill: impl FnOnce(&mut DirectoryReply<'_, '_>) -> R) -> (R, Vec<u8>) {
    let mut memory = vec![0xee; room];
    let (result, written) = {
        let segments = [VolatileSlice::from(memory.as_mut_slice())];
        let mut body = Body::new(&segments, 0);
        let result = fill(&mut DirectoryReply::new(&mut body));
        (result, body.written())
    };
    assert!(memory[written..].iter().all(|byte| *byte == 0xee), "nothing is written behind the last entry");
    memory.truncate(written);
    (result, memory)
}

#[test]
fn an_entry_is_padded_to_eight_bytes_for_every_length_of_name() {
    for len in 1..=255_usize {
        let name = vec![b'n'; len];
        let size = (24 + len).div_ceil(8) * 8;
        let (fits, memory) = packed(size, |reply| reply.push(7, 9, 4, &name));
        assert!(fits);
        let mut expected = bytes("0700000000000000 0900000000000000");
        expected.extend((len as u32).to_ne_bytes());
        expected.extend(bytes("04000000"));
        expected.extend(&name);
        expected.resize(size, 0);
        assert_eq!(memory, expected);
        // One byte less, though it be of padding, and nothing is written.
        let (fits, memory) = packed(size - 1, |reply| reply.push(7, 9, 4, &name));
        assert!(!fits && memory.is_empty());
    }
}

#[test]
fn an_entry_with_attributes_carries_them_in_front() {
    for len in [1, 7, 8, 9, 255] {
        let name = vec![b'n'; len];
        let size = (152 + len).div_ceil(8) * 8;
        let (fits, memory) =
            packed(size, |reply| reply.has_room_plus(&name) && reply.push_plus(&ENTRY, 7, 9, 4, &name));
        assert!(fits);
        assert_eq!(memory.len(), size);
        assert_eq!(memory[..8], 43_u64.to_ne_bytes());
        assert_eq!(memory[128..136], 7_u64.to_ne_bytes());
        assert_eq!(memory[152..152 + len], name);
    }
}

#[test]
fn has_room_plus_says_exactly_what_push_plus_will_do() {
    for room in 0..700 {
        for len in [1, 8, 100, 255] {
            let name = vec![b'n'; len];
            packed(room, |reply| {
                for _ in 0..5 {
                    let (foretold, before) = (reply.has_room_plus(&name), reply.is_empty());
                    assert_eq!(reply.push_plus(&ENTRY, 1, 2, 8, &name), foretold, "{room} {len}");
                    assert_eq!(reply.is_empty(), before && !foretold);
                }
            });
        }
    }
}

#[test]
fn a_smaller_entry_may_follow_one_that_did_not_fit() {
    let ((first, second, third), memory) = packed(32 + 32, |reply| {
        (reply.push(1, 1, 8, b"a"), reply.push(2, 2, 8, b"longer than eight"), reply.push(3, 3, 8, b"b"))
    });
    assert_eq!((first, second, third, memory.len()), (true, false, true, 64));
}
