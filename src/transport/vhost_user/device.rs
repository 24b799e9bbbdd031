//! What the front end says: features, memory, rings. Each message is answered here; requests never wait for one but
//! where the front end waits for them.

use std::{fs::File, sync::Arc};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use vhost::{
    VhostUserMemoryRegionBase,
    vhost_user::{
        Error, GpuBackend, Result, VhostUserBackendReqHandlerMut,
        message::{
            VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
            VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
            VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
        },
    },
};
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use super::{
    DeviceOptions,
    dirty::DirtyLog,
    mapping::map,
    notifier,
    ring::{RING_MAX, Ring},
};

const NOTIFICATION: u64 = 1 << 0;
const RING_INDIRECT_DESC: u64 = 1 << 28;
const RING_EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;
const RING_RESET: u64 = 1 << 40;
const LOG_ALL: u64 = VhostUserVirtioFeatures::LOG_ALL.bits();
const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
const FEATURES: u64 = RING_INDIRECT_DESC | RING_EVENT_IDX | VERSION_1 | RING_RESET | LOG_ALL | PROTOCOL_FEATURES;

/// As many memory regions as a virtual machine monitor can have, near enough.
const REGIONS_MAX: u64 = 509;
const TAG_LEN: usize = 36;

/// A device as one front end sees it.
pub(super) struct Device<'s> {
    /// The queue of high priority and those of requests.
    rings: Vec<Arc<Ring>>,
    /// The queue of notifications, where one is offered.
    notifications: Option<Arc<Ring>>,
    tag: Option<String>,
    request_queues: usize,
    acknowledged: u64,
    regions: Vec<Region>,
    memory: Arc<GuestMemoryMmap>,
    log: Option<Arc<DirtyLog>>,
    told: Told<'s>,
}

/// Who is told of what.
#[derive(Clone, Copy)]
pub(super) struct Told<'s> {
    /// The guest is gone without a word: everything it had is given back.
    pub(super) end_session: &'s (dyn Fn() + Sync),
    /// The guest takes no notifications for now.
    pub(super) unheard: &'s (dyn Fn() + Sync),
}

/// Where the front end has a region of guest memory in its own address space.
struct Region {
    user: u64,
    guest: u64,
    size: u64,
}

impl<'s> Device<'s> {
    pub(super) fn new(
        rings: Vec<Arc<Ring>>,
        notifications: Option<Arc<Ring>>,
        options: &DeviceOptions,
        told: Told<'s>,
    ) -> Self {
        Self {
            rings,
            notifications,
            tag: options.tag.clone(),
            request_queues: options.request_queues,
            acknowledged: 0,
            regions: Vec::new(),
            memory: Arc::new(GuestMemoryMmap::new()),
            log: None,
            told,
        }
    }

    fn features(&self) -> u64 {
        if self.notifications.is_some() { FEATURES | NOTIFICATION } else { FEATURES }
    }

    /// As many queues as there can be, whichever features are acknowledged: one without notifications may have a queue of
    /// requests in their place.
    fn queues(&self) -> usize {
        self.rings.len()
    }

    /// The ring of that number, which depends on whether the guest takes notifications.
    fn ring(&self, index: u32) -> Result<&Arc<Ring>> {
        let index = index as usize;
        let ring = match index {
            _ if index >= self.queues() => None,
            notifier::QUEUE if self.acknowledged & NOTIFICATION != 0 => self.notifications.as_ref(),
            notifier::QUEUE.. if self.acknowledged & NOTIFICATION != 0 => self.rings.get(index - 1),
            _ => self.rings.get(index),
        };
        ring.ok_or(Error::InvalidParam)
    }

    fn all_rings(&self) -> impl Iterator<Item = &Ring> {
        self.rings.iter().chain(&self.notifications).map(|ring| &**ring)
    }

    /// A ring is served from now on, or no longer: who speaks by it begins anew.
    fn moved(&self, ring: &Arc<Ring>) {
        if self.notifications.as_ref().is_some_and(|notifications| Arc::ptr_eq(notifications, ring)) {
            (self.told.unheard)();
        }
    }

    /// An address of the front end's as the guest has it.
    fn guest_address(&self, user: u64) -> Result<u64> {
        let found = self.regions.iter().find_map(|region| {
            let offset = user.checked_sub(region.user)?;
            if offset < region.size { region.guest.checked_add(offset) } else { None }
        });
        found.ok_or(Error::InvalidParam)
    }

    fn use_memory(&mut self, memory: GuestMemoryMmap) {
        self.memory = Arc::new(memory);
        self.all_rings().for_each(|ring| ring.set_memory(Arc::clone(&self.memory)));
    }

    /// Hands the log to the rings while the front end wants one.
    fn use_log(&self) {
        let log = if self.acknowledged & LOG_ALL != 0 { self.log.clone() } else { None };
        self.all_rings().for_each(|ring| ring.set_log(log.clone()));
    }

    /// Back to where a new front end begins. Nothing is in flight afterwards.
    fn reset(&mut self) {
        self.all_rings().for_each(Ring::reset);
        (self.told.unheard)();
        self.acknowledged = 0;
        self.log = None;
        self.use_log();
        (self.told.end_session)();
    }

    fn config_space(&self) -> Vec<u8> {
        let mut space = vec![0; TAG_LEN];
        let tag = self.tag.as_deref().unwrap_or_default().as_bytes();
        space.iter_mut().zip(tag).for_each(|(place, byte)| *place = *byte);
        space.extend(u32::try_from(self.request_queues).unwrap_or(u32::MAX).to_le_bytes());
        if self.notifications.is_some() {
            space.extend(notifier::BUFFER.to_le_bytes());
        }
        space
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::ReqHandlerError(std::io::Error::other(error))
}

fn region(place: &VhostUserMemoryRegion, file: File) -> Result<GuestRegionMmap> {
    let mapping = map(file, place.mmap_offset, place.memory_size).map_err(Error::ReqHandlerError)?;
    GuestRegionMmap::new(mapping, GuestAddress(place.guest_phys_addr)).ok_or(Error::InvalidParam)
}

impl VhostUserBackendReqHandlerMut for Device<'_> {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.features())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.features() != 0 {
            return Err(Error::InvalidParam);
        }
        self.acknowledged = features;
        for ring in self.all_rings() {
            ring.set_event_idx(features & RING_EVENT_IDX != 0);
            // Without this feature there is no message to enable a ring.
            if features & PROTOCOL_FEATURES == 0 {
                ring.set_enabled(true);
            }
        }
        self.use_log();
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        let mut features = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::RESET_DEVICE;
        // QEMU 7.1 to 8.0 crash when a device without a tag of its own offers it.
        features.set(VhostUserProtocolFeatures::CONFIG, self.tag.is_some());
        Ok(features)
    }

    fn set_protocol_features(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.queues() as u64)
    }

    fn set_mem_table(
        &mut self,
        places: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let mapped = places.iter().zip(files).map(|(place, file)| region(place, file)).collect::<Result<_>>()?;
        let memory = GuestMemoryMmap::from_regions(mapped).map_err(failed)?;
        self.regions = places
            .iter()
            .map(|place| Region { user: place.user_addr, guest: place.guest_phys_addr, size: place.memory_size })
            .collect();
        self.use_memory(memory);
        Ok(None)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(REGIONS_MAX)
    }

    fn add_mem_region(
        &mut self,
        place: &VhostUserSingleMemoryRegion,
        file: File,
        _: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        if self.regions.len() as u64 >= REGIONS_MAX {
            return Err(Error::InvalidParam);
        }
        let memory = self.memory.insert_region(Arc::new(region(place, file)?)).map_err(failed)?;
        self.regions.push(Region { user: place.user_addr, guest: place.guest_phys_addr, size: place.memory_size });
        self.use_memory(memory);
        Ok(None)
    }

    fn remove_mem_region(&mut self, place: &VhostUserSingleMemoryRegion) -> Result<()> {
        let start = GuestAddress(place.guest_phys_addr);
        let (memory, _) = self.memory.remove_region(start, place.memory_size).map_err(failed)?;
        self.regions.retain(|region| region.guest != place.guest_phys_addr);
        self.use_memory(memory);
        Ok(())
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let size = u16::try_from(num).ok().filter(|size| size.is_power_of_two() && *size <= RING_MAX);
        self.ring(index)?.set_size(size.ok_or(Error::InvalidParam)?);
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        log: u64,
    ) -> Result<()> {
        let (table, available, used) =
            (self.guest_address(descriptor)?, self.guest_address(available)?, self.guest_address(used)?);
        let used_log = flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG).then_some(GuestAddress(log));
        self.ring(index)?.set_addresses(table, available, used, used_log).map_err(|_| Error::InvalidParam)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.ring(index)?.set_next_available((base & 0xffff) as u16);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let ring = self.ring(index)?;
        let next = ring.stop();
        self.moved(ring);
        Ok(VhostUserVringState::new(index, u32::from(next)))
    }

    fn set_vring_kick(&mut self, index: u8, kick: Option<File>) -> Result<()> {
        let ring = self.ring(u32::from(index))?;
        ring.start(kick).map_err(Error::ReqHandlerError)?;
        self.moved(ring);
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> Result<()> {
        let ring = self.ring(u32::from(index))?;
        // A call that nobody takes must not hold up the thread that makes it: one that is due is enough.
        if let Some(call) = &call {
            fcntl_getfl(call).and_then(|flags| fcntl_setfl(call, flags | OFlags::NONBLOCK)).map_err(failed)?;
        }
        ring.set_call(call);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _: Option<File>) -> Result<()> {
        self.ring(u32::from(index)).map(drop)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let ring = self.ring(index)?;
        ring.set_enabled(enable);
        self.moved(ring);
        Ok(())
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let space = self.config_space();
        // Beyond its end the space reads as zeros, as long as the front end stays within what a message can hold.
        let rest = space.into_iter().skip(offset as usize).chain(std::iter::repeat(0));
        Ok(rest.take(size.min(4096) as usize).collect())
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Err(Error::InvalidOperation("nothing of the device's configuration can be written"))
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        let log = DirtyLog::new(file, log.mmap_offset, log.mmap_size).map_err(Error::ReqHandlerError)?;
        self.log = Some(Arc::new(log));
        self.use_log();
        Ok(())
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(Error::InvalidOperation("this is no GPU"))
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidOperation("no objects are shared"))
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(Error::InvalidOperation("requests in flight are not tracked"))
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(Error::InvalidOperation("requests in flight are not tracked"))
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidOperation("the device's state cannot be moved"))
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("the device's state cannot be moved"))
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidOperation("there is no shared window"))
    }
}
