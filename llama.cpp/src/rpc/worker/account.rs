//! What a worker takes beside the buffers that sessions reserve, so that all of it together stays below
//! `--max-memory`: what waits for queues, graphs, uploads, and room to change a weight's layout in.
//!
//! A session has a share set aside for that. What it takes beyond comes from what nobody reserved, and where
//! there is nothing, the session ends.

use std::sync::{Arc, Mutex};

use super::Fault;
use super::device::Device;
use crate::rpc::link::lock;

/// The process itself: program, threads, what ggml needs while it computes, and a frame that is being
/// read or sent.
pub(super) const PROCESS: u64 = 128 << 20;
/// What a session has for itself, at least.
const LEAST_SHARE: u64 = 64 << 20;
/// And of what it reserved, this part more: what waits grows with the model.
const SHARE: u64 = 64;

/// A session's share where it reserves so many bytes.
pub(super) fn share(reserved: u64) -> u64 {
    LEAST_SHARE + reserved / SHARE
}

/// What a session can reserve of so many bytes, its share being taken of them, too.
pub(super) fn most_to_reserve(free: u64) -> u64 {
    let rest = free.saturating_sub(LEAST_SHARE);
    rest - rest.div_ceil(SHARE + 1)
}

/// What a session takes beside its buffers.
#[derive(Debug)]
pub(super) struct Account {
    /// What is set aside, by device: on each a share of what the session reserved there.
    aside: Vec<(Arc<Device>, u64)>,
    /// From where more is taken.
    device: Arc<Device>,
    share: u64,
    taken: Mutex<u64>,
}

impl Account {
    /// An account for a session that reserves so many bytes on these devices, one at least.
    pub(super) fn open(reserved: &[(Arc<Device>, u64)]) -> Result<Arc<Self>, Fault> {
        let most = reserved.iter().max_by_key(|(_, bytes)| *bytes);
        let (device, _) = most.ok_or_else(|| Fault::protocol("a session without queues"))?;
        let mut account = Self {
            aside: Vec::new(),
            device: device.clone(),
            share: 0,
            taken: Mutex::new(0),
        };
        let mut by_device: Vec<(&Arc<Device>, u64)> = Vec::new();
        for (device, bytes) in reserved {
            match by_device.iter_mut().find(|(other, _)| Arc::ptr_eq(other, device)) {
                Some((_, all)) => *all += bytes,
                None => by_device.push((device, *bytes)),
            }
        }
        // Where nothing is reserved at all, something waits nevertheless.
        by_device.retain(|(other, bytes)| *bytes > 0 || Arc::ptr_eq(other, device));
        for (device, bytes) in by_device {
            let share = share(bytes);
            device.take(share)?;
            account.share += share;
            account.aside.push((device.clone(), share));
        }
        Ok(Arc::new(account))
    }

    /// Room for so many bytes.
    pub(super) fn take(self: &Arc<Self>, bytes: u64) -> Result<Room, Fault> {
        let mut room = Room {
            of: self.clone(),
            bytes: 0,
        };
        room.resize(bytes)?;
        Ok(room)
    }

    /// What `taken` is beyond the share.
    fn beyond(&self, taken: u64) -> u64 {
        taken.saturating_sub(self.share)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        for (device, share) in &self.aside {
            device.give_back(*share);
        }
    }
}

/// Bytes of an account that are in use.
#[derive(Debug)]
pub(super) struct Room {
    of: Arc<Account>,
    bytes: u64,
}

impl Room {
    /// Makes it so large.
    pub(super) fn resize(&mut self, bytes: u64) -> Result<(), Fault> {
        let account = &self.of;
        let mut taken = lock(&account.taken);
        let after = *taken - self.bytes + bytes;
        let (had, needs) = (account.beyond(*taken), account.beyond(after));
        if needs > had {
            account.device.take(needs - had)?;
        } else {
            account.device.give_back(had - needs);
        }
        (*taken, self.bytes) = (after, bytes);
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = lock(&self.of.taken);
        let after = *taken - self.bytes;
        let back = self.of.beyond(*taken) - self.of.beyond(after);
        self.of.device.give_back(back);
        *taken = after;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rpc::tests::lab;

    const MIB: u64 = 1 << 20;

    #[test]
    fn an_account_takes_its_share_first_and_then_what_nobody_reserved() {
        let device = lab::cpu(200 * MIB);
        let free = || device.offer().free;
        let all = free();
        let account = Account::open(&[(device.clone(), 64 * MIB)]).unwrap();
        let open = free();
        assert!(open < all);
        let room = account.take(share(64 * MIB)).unwrap();
        assert_eq!(free(), open, "that was set aside");
        let more = account.take(70 * MIB).unwrap();
        assert!(free() < open);
        assert!(account.take(100 * MIB).is_err());
        drop(more);
        assert_eq!(free(), open);
        drop(room);
        assert_eq!(free(), open);
        drop(account);
        assert_eq!(free(), all);
    }

    #[test]
    fn each_device_sets_aside_for_what_is_reserved_on_it_and_a_full_one_for_nothing() {
        let (full, roomy) = (lab::cpu(0), lab::cpu(10_000 * MIB));
        let free = |device: &Arc<Device>| *lock(&device.free);
        let reserved = [(full.clone(), 0), (roomy.clone(), 6400 * MIB)];
        let account = Account::open(&reserved).unwrap();
        assert_eq!((free(&full), free(&roomy)), (0, 10_000 * MIB - share(6400 * MIB)));
        drop(account);
        let (one, other) = (lab::cpu(1000 * MIB), lab::cpu(1000 * MIB));
        let reserved = [
            (one.clone(), 64 * MIB),
            (other.clone(), 128 * MIB),
            (one.clone(), 64 * MIB),
        ];
        let account = Account::open(&reserved).unwrap();
        let taken = 1000 * MIB - share(128 * MIB);
        assert_eq!((free(&one), free(&other)), (taken, taken));
        drop(account);
        assert_eq!((free(&one), free(&other)), (1000 * MIB, 1000 * MIB));
        assert!(Account::open(&[(full, 64 * MIB)]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_offered_can_be_reserved(free in 0_u64..1 << 50) {
            let reserved = most_to_reserve(free);
            prop_assert!(reserved == 0 || reserved + share(reserved) <= free);
            prop_assert!(free < LEAST_SHARE || reserved + share(reserved) + 2 >= free);
        }

        #[test]
        fn whatever_is_taken_and_given_back_adds_up(sizes in prop::collection::vec(0_u64..90, 1..20)) {
            let device = lab::cpu(400 * MIB);
            let all = *lock(&device.free);
            let account = Account::open(&[(device.clone(), 0)]).unwrap();
            let mut rooms = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                if let Ok(room) = account.take(size * MIB) {
                    rooms.push(room);
                }
                if index % 3 == 2 {
                    rooms.remove(0);
                }
                let used: u64 = rooms.iter().map(|room| room.bytes).sum();
                prop_assert_eq!(all - *lock(&device.free), used.max(share(0)));
            }
            drop(rooms);
            drop(account);
            prop_assert_eq!(*lock(&device.free), all);
        }
    }
}
