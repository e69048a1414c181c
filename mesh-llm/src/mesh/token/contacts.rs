//! Which contacts a token has room for.

use super::limits::{MOST_ADDRESSES, MOST_CONTACTS};
use crate::mesh::id::{Address, Contact};
use std::net::{SocketAddr, SocketAddrV6};

/// Leaves away what no token may have, and what means nothing on another machine.
pub(super) fn trim(contacts: &mut Vec<Contact>) {
    contacts.truncate(MOST_CONTACTS);
    for contact in contacts {
        contact.addresses.truncate(MOST_ADDRESSES);
        contact.addresses.iter_mut().for_each(make_portable);
    }
}

/// Leaves one address away: the last of whoever has the most, and of those the last; when each has but one, the
/// last contact goes. False: there is only one way left to call anybody.
pub(super) fn shorten(contacts: &mut Vec<Contact>) -> bool {
    let longest = contacts.iter_mut().max_by_key(|contact| contact.addresses.len());
    if let Some(contact) = longest.filter(|contact| contact.addresses.len() > 1) {
        return contact.addresses.pop().is_some();
    }
    contacts.len() > 1 && contacts.pop().is_some()
}

/// A scope is a number of this machine's interfaces, and nobody else's.
fn make_portable(address: &mut Address) {
    if let Address::Ip(SocketAddr::V6(v6)) = address {
        *v6 = SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iroh_base::SecretKey;

    fn contact(seed: u8, ports: &[u16]) -> Contact {
        Contact {
            node: SecretKey::from_bytes(&[seed; 32]).public(),
            addresses: ports.iter().map(|&port| at(port)).collect(),
        }
    }

    fn at(port: u16) -> Address {
        Address::Ip(([192, 0, 2, 1], port).into())
    }

    #[test]
    fn the_least_likely_address_goes_first_and_one_way_stays() {
        let mut contacts = vec![contact(1, &[1, 2, 3]), contact(2, &[4, 5])];
        let mut left = Vec::new();
        while shorten(&mut contacts) {
            left.push(
                contacts
                    .iter()
                    .map(|contact| contact.addresses.len())
                    .collect::<Vec<_>>(),
            );
        }
        assert_eq!(left, [vec![2, 2], vec![2, 1], vec![1, 1], vec![1]]);
        assert_eq!(contacts, [contact(1, &[1])]);
    }

    #[test]
    fn a_contact_without_addresses_is_found_by_its_name() {
        let mut contacts = vec![contact(1, &[])];
        assert!(!shorten(&mut contacts));
        assert!(!shorten(&mut Vec::new()));
        assert_eq!(contacts.len(), 1);
    }

    #[test]
    fn a_machine_with_many_interfaces_names_the_first() {
        let ports: Vec<u16> = (0..20).collect();
        let mut contacts = (0..5).map(|seed| contact(seed, &ports)).collect();
        trim(&mut contacts);
        assert_eq!(contacts.len(), MOST_CONTACTS);
        assert!(
            contacts
                .iter()
                .all(|contact| contact.addresses.len() == MOST_ADDRESSES)
        );
        assert_eq!(contacts[0].addresses[7], at(7));
    }

    #[test]
    fn a_scope_does_not_leave_its_machine() {
        let ip = "fe80::1".parse().unwrap();
        let mut contacts = vec![contact(1, &[])];
        let scoped = SocketAddrV6::new(ip, 7, 1, 3);
        contacts[0].addresses.push(Address::Ip(SocketAddr::V6(scoped)));
        trim(&mut contacts);
        let plain = SocketAddrV6::new(ip, 7, 0, 0);
        assert_eq!(contacts[0].addresses, [Address::Ip(SocketAddr::V6(plain))]);
    }
}
