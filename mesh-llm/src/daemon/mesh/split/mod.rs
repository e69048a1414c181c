//! Models that are split over machines of the mesh: what this machine lends, what it is lent, and the streams between.
//!
//! A host's daemon has the workers' daemons fetch the model, where they do not have it ([`copies`], [`fetcher`]), and asks
//! them to lend ([`group`]); these start a process for it ([`lender`]); and the
//! processes reach each other through both daemons ([`tunnel`]), so that nothing of a split needs an address or a
//! port that others could reach, and all of it is encrypted.

mod copies;
mod fetcher;
mod group;
mod lender;
mod tunnel;

pub(in crate::daemon) use copies::have_copies;
pub(in crate::daemon) use fetcher::Fetcher;
pub(in crate::daemon) use group::{FormError, Group, Wanted};
pub(in crate::daemon) use lender::{Event as LenderEvent, LaunchFor, Lender, Lent};

use crate::mesh::id::NodeId;
use crate::mesh::wire::GroupId;
use llama_engine::rpc::door::SCHEME;

/// How a group's processes name a machine of it.
fn name(node: NodeId, group: GroupId, label: &str) -> String {
    // A label is for people. Slashes divide names, commas lists of them.
    let label: String = label
        .chars()
        .filter(|letter| !letter.is_control() && !"/,".contains(*letter))
        .take(MOST_LABEL)
        .collect();
    format!("{SCHEME}{node}/{:032x}/{label}", u128::from_be_bytes(group.0))
}

/// Letters of a label: names fit into what a door takes.
const MOST_LABEL: usize = 24;

/// The machine and the group that such a name means.
fn read_name(name: &str) -> Option<(NodeId, GroupId)> {
    let mut parts = name.strip_prefix(SCHEME)?.splitn(3, '/');
    let node = parts.next()?.parse().ok()?;
    let group = u128::from_str_radix(parts.next()?, 16).ok()?;
    Some((node, GroupId(group.to_be_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use llama_engine::rpc::door::{Key, knock, shown};

    #[test]
    fn a_name_is_read_as_it_is_written_and_fits_through_a_door() {
        let node = iroh_base::SecretKey::from_bytes(&[7; 32]).public();
        let group = GroupId([0xab; 16]);
        let label = "ключ/".repeat(20);
        let name = name(node, group, &label);
        assert_eq!(read_name(&name), Some((node, group)));
        assert_eq!(shown(&name).chars().count(), MOST_LABEL);
        assert!(
            knock(Key([0; 32]), &name).ends_with(name.as_bytes()),
            "nothing is cut"
        );
        for bad in ["", "mesh:", "mesh:ab/cd/e", &name[5..], &name[..70]] {
            assert_eq!(read_name(bad), None, "{bad}");
        }
    }
}
