//! How fast failures are noticed, and what that costs.

use super::packet::MAX_PACKET_BYTES;
use foca::{Config, PeriodicParams};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

/// Between two probes of a member. A member is probed by somebody once a period on the average, but by chance: of 20
/// members, all 19 miss it in 8 periods once in some 20,000 times. These 1.6 s, the period of the probe that fails,
/// and the time to object make 2.8 s, which leaves 200 ms for the news to be everywhere: 3 s in all. With the 500 ms
/// that LANs often take, one death in fifteen would be noticed too late. The price is 10 small packets a second.
pub(super) const PROBE_PERIOD: Duration = Duration::from_millis(200);

/// How long a probe may take directly; afterwards others are asked to try, and have the rest of the period. Paths with
/// RTTs up to 53 ms keep within it with a margin, see [`super::timers`].
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_millis(80);

/// How long a suspect has to object in a mesh of up to [`FEW_MEMBERS`]. These are five probes and five rounds of gossip: at 5 % loss of packets it will
/// have heard of the suspicion, and its objection will be heard. A program that gets no processor for as long as this
/// (while it loads a model, say) is not taken for dead.
const TIME_TO_OBJECT: Duration = Duration::from_secs(1);

/// Each doubling of more members than these takes news a round of gossip longer, and another one the objection; with a
/// margin for what is lost. Without that, of 500 simulated nodes that lose 5 % of their packets four were wrongly taken
/// for dead within a minute.
const FEW_MEMBERS: usize = 20;

/// How much longer a suspect has to object for each doubling.
const LONGER_BY: Duration = Duration::from_millis(500);

/// How long a suspect has to object where `foca` gives it so long, in a mesh of so many members.
pub(super) fn time_to_object(given: Duration, members: usize) -> Duration {
    let doublings = (members.max(FEW_MEMBERS) as f64 / FEW_MEMBERS as f64).log2();
    given + LONGER_BY.mul_f64(doublings)
}

/// Members that are asked to probe another one, and that hear of a death at once.
const HELPERS: usize = 3;

/// How often each member passes on a change. So often each hears of it on the average, and by chance, so at 5 % loss one in
/// four million misses it, and finds out by itself only by and by. With 10 times, 4 × log10 of 500 members as memberlist has
/// it, one of 13,000 does: of 50 nodes of 500 that died at once two were still alive to somebody after 10 s.
const TRANSMISSIONS: u8 = 16;

/// Between two rounds of gossip, of which there are none without changes.
const GOSSIP_EVERY: Duration = Duration::from_millis(200);

/// Between two questions to a random member for others that it knows: who was missed by all gossip is found by this.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// Between two calls to some of those that are down. This heals partitions: each side has declared the other dead, so
/// no probe crosses the border any more.
pub(super) const HAIL_EVERY: Duration = Duration::from_secs(2);

/// How many of them are called.
pub(super) const HAILED: usize = 3;

/// What `foca` goes by.
pub(super) fn config() -> Config {
    let helpers = NonZeroUsize::new(HELPERS).expect("some help");
    Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_TIMEOUT,
        num_indirect_probes: helpers,
        max_transmissions: NonZeroU8::new(TRANSMISSIONS).expect("changes are told"),
        suspect_to_down_after: TIME_TO_OBJECT,
        // Never: a departure outlives its rumours. There are no more of them than the mesh ever had members.
        remove_down_after: None,
        max_packet_size: NonZeroUsize::new(MAX_PACKET_BYTES).expect("packets have bytes"),
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams {
            frequency: ASK_EVERY,
            num_members: NonZeroUsize::MIN,
        }),
        // Foca calls the dead only while someone is alive, so of two nodes neither would call: see `hail`.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams {
            frequency: GOSSIP_EVERY,
            num_members: helpers,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspects_have_longer_to_object_in_large_meshes_only() {
        for (members, millis) in [(0, 1_000), (20, 1_000), (40, 1_500), (320, 3_000)] {
            let time = time_to_object(TIME_TO_OBJECT, members);
            assert_eq!(time, Duration::from_millis(millis), "{members}");
        }
    }
}
