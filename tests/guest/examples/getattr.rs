//! GETATTR of the root at a given depth, on a daemon that shares a directory, and on a device that does nothing:
//! `getattr DAEMON DIR [ARGS...]`. Shows how to keep many requests under way, and what the ring alone costs.

use std::path::Path;
use std::time::{Duration, Instant};

use ferryfs_guest::memory::{Arena, Memory, PAGE};
use ferryfs_guest::ring::Layout;
use ferryfs_guest::{Client, Cuts, Daemon, Lane, LaneSize, NullDevice, Options, Result, Ring};
use fuse_abi::{GetattrIn, InHeader, Opcode, ROOT_ID};
use zerocopy::IntoBytes;

const LIMIT: Duration = Duration::from_secs(30);
const REQUESTS: u64 = 200_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, dir, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: getattr DAEMON DIR [ARGS...]");
        std::process::exit(2);
    };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let mut daemon = Daemon::share(Path::new(program), Path::new(dir), &rest)?;
    let mut client = Client::connect(daemon.connect()?, &Options::default())?;
    client.init()?;
    let (mut null_lane, _null) = null_lane()?;
    for depth in [1, 32] {
        let before = daemon.cpu_time()?;
        let rate = run(client.lane(), depth)?;
        let cpu = (daemon.cpu_time()? - before).as_secs_f64() * 1e6 / REQUESTS as f64;
        println!("depth {depth:>2}: {rate:>8.0} getattr/s, {cpu:.2} us of the daemon's CPU time each");
        println!("depth {depth:>2}: {:>8.0} a second on a device that does nothing", run(&mut null_lane, depth)?);
    }
    Ok(())
}

fn run(lane: &mut Lane, depth: usize) -> Result<f64> {
    let body = GetattrIn::default();
    let len = (size_of::<InHeader>() + size_of_val(&body)) as u32;
    let (mut sent, mut done) = (0, 0);
    let start = Instant::now();
    while done < REQUESTS {
        while sent < REQUESTS && lane.in_flight() < depth {
            sent += 1;
            let header = InHeader {
                len,
                opcode: Opcode::Getattr.number(),
                unique: sent,
                nodeid: ROOT_ID,
                ..InHeader::default()
            };
            lane.send(sent, header.as_bytes(), &[body.as_bytes()], 120, &Cuts::LINUX)?;
        }
        lane.complete(LIMIT)?.check()?;
        done += 1;
    }
    Ok(REQUESTS as f64 / start.elapsed().as_secs_f64())
}

fn null_lane() -> Result<(Lane, NullDevice)> {
    let size = 64 << 20;
    let mut arena = Arena::new(PAGE, size - PAGE);
    let layout = Layout::take(&mut arena, 128)?;
    let ring = Ring::new(Memory::new(&[(0, size)])?, layout, true)?;
    let device = NullDevice::start(&ring, true)?;
    let lane = Lane::new(ring, &mut arena, LaneSize { slots: 32, request: 4096, reply: 4096, indirect: true })?;
    Ok((lane, device))
}
