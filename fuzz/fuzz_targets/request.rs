//! Any bytes as a request: an answer within its room, silence or a counted drop, and no byte beyond the room.
//!
//! Input: the client's minor version, whether the share is read-only, the room for the reply (two bytes), the request.
#![no_main]

#[path = "../../tests/protocol/recorder.rs"]
mod recorder;

use ferryfs::protocol::{GuestArch, MAX_HEAD, Options, Payload, Served, Server};
use fuse_abi::{InHeader, InitFlags, InitIn, Opcode, OutHeader};
use libfuzzer_sys::fuzz_target;
use recorder::Recorder;
use vm_memory::VolatileSlice;
use zerocopy::{FromBytes, IntoBytes};

/// What stands behind the room, and must go on standing there.
const GUARD: [u8; 64] = [0xa5; 64];

fuzz_target!(|data: &[u8]| {
    let [minor, flags, low, high, request @ ..] = data else { return };
    let room = usize::from(u16::from_le_bytes([*low, *high]));
    let recorder = Recorder { quiet: true, ..Recorder::default() };
    let server = Server::new(recorder, Options { read_only: flags & 1 != 0, arch: GuestArch::Generic });
    mount(&server, u32::from(*minor));

    let mut bytes = request.to_vec();
    let head_len = server.head_len(&bytes[..bytes.len().min(size_of::<InHeader>())], bytes.len());
    assert!(head_len <= MAX_HEAD && head_len <= bytes.len());
    let head = bytes[..head_len].to_vec();
    let whole = [VolatileSlice::from(&mut bytes[..])];
    let mut reply = [vec![0; room], GUARD.to_vec()].concat();
    let served = {
        let (front, back) = reply[..room].split_at_mut(room.min(usize::from(*flags)));
        let segments = [VolatileSlice::from(front), VolatileSlice::from(back)];
        server.serve(&head, Payload::new(&whole, head_len), &segments, flags & 2 != 0)
    };
    assert_eq!(reply[room..], GUARD);
    if let Served::Reply(len) = served {
        let (answer, _) = OutHeader::read_from_prefix(&reply).unwrap();
        let (asked, _) = InHeader::read_from_prefix(&head).unwrap();
        assert!(answer.len == len && len as usize <= room && answer.unique == asked.unique, "{answer:?}");
        assert!((-4095..=0).contains(&answer.error), "{answer:?}");
    }
});

fn mount(server: &Server<Recorder>, minor: u32) {
    let (flags, flags2) = InitFlags::all().split();
    let offer = InitIn { major: 7, minor, max_readahead: 1 << 17, flags, flags2, ..InitIn::default() };
    let offer = &offer.as_bytes()[..if minor < 36 { 16 } else { size_of::<InitIn>() }];
    let len = (size_of::<InHeader>() + offer.len()) as u32;
    let header = InHeader { len, opcode: Opcode::Init.number(), unique: 2, ..InHeader::default() };
    let request = [header.as_bytes(), offer].concat();
    let mut room = vec![0; 128];
    let reply = [VolatileSlice::from(&mut room[..])];
    server.serve(&request, Payload::empty(), &reply, true);
}
