//! Any bytes as a guest's memory: a chain in it is memory of the guest's, or it is refused; and what it holds is served.
//!
//! Input: the head (two bytes), the size of the table (two), its address (four), then what memory begins with.
#![no_main]

#[path = "../../tests/protocol/recorder.rs"]
mod recorder;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use ferryfs::protocol::{Options, Server};
use ferryfs::transport::virtqueue::{Chain, Memory, Table, copy_head, serve};
use libfuzzer_sys::fuzz_target;
use recorder::Recorder;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, VolatileSlice};

/// Two regions that touch, a hole, and a small one.
const REGIONS: [(u64, usize); 3] = [(0, 0x4000), (0x4000, 0x1000), (0x8000, 0x100)];

struct World {
    memory: Memory,
    mapped: Vec<Range<usize>>,
    server: Server<Recorder>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let ranges = REGIONS.map(|(start, len)| (GuestAddress(start), len));
        let map: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&ranges).unwrap();
        let mapped = map.iter().map(|region| {
            let start = map.get_host_address(region.start_addr()).unwrap() as usize;
            start..start + region.len() as usize
        });
        let mapped = mapped.collect();
        let server = Server::new(Recorder { quiet: true, ..Recorder::default() }, Options::default());
        World { memory: Arc::new(Arc::new(map)), mapped, server }
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((lead, content)) = data.split_first_chunk::<8>() else { return };
    let [h0, h1, s0, s1, address @ ..] = *lead;
    let World { memory, mapped, server } = world();
    // What an earlier input left there would make this one mean something else another time.
    for (start, len) in REGIONS {
        memory.write_slice(&vec![0; len], GuestAddress(start)).unwrap();
    }
    let content = &content[..content.len().min(0x5000)];
    memory.write_slice(content, GuestAddress(0)).unwrap();

    let table = Table { address: u32::from_le_bytes(address).into(), len: u16::from_le_bytes([s0, s1]) };
    let mut chain = Chain::default();
    if chain.load(memory, table, u16::from_le_bytes([h0, h1])).is_err() {
        assert!(chain.readable().is_empty() && chain.writable().is_empty());
        return;
    }
    let all = chain.readable().iter().chain(chain.writable());
    for slice in all {
        let start = slice.ptr_guard().as_ptr() as usize;
        assert!(mapped.iter().any(|range| range.start <= start && start + slice.len() <= range.end), "{slice:?}");
    }
    let room: usize = chain.writable().iter().map(VolatileSlice::len).sum();
    let logged: usize = chain.written(usize::MAX).map(|(_, len)| len).sum();
    assert_eq!(room, logged);
    let mut head = Vec::new();
    copy_head(server, &chain, &mut head);
    if let ferryfs::protocol::Served::Reply(len) = serve(server, &chain, &head, true) {
        assert!(len as usize <= room);
    }
});
