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
    device: Arc<Device>,
    share: u64,
    taken: Mutex<u64>,
}

impl Account {
    /// An account for a session that reserves so many bytes.
    pub(super) fn open(device: Arc<Device>, reserved: u64) -> Result<Arc<Self>, Fault> {
        let share = share(reserved);
        device.take(share)?;
        Ok(Arc::new(Self {
            device,
            share,
            taken: Mutex::new(0),
        }))
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
        self.device.give_back(self.share);
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
        let account = Account::open(device.clone(), 64 * MIB).unwrap();
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
            let account = Account::open(device.clone(), 0).unwrap();
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
