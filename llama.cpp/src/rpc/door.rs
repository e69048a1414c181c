//! The door through which a split's processes reach nodes that only their daemon reaches.
//!
//! A daemon that carries a split through its mesh opens a door on loopback. Its children name other nodes as
//! `mesh:NODE/GROUP/LABEL` instead of by an address, knock with the key that came in their environment and that
//! name, and have a stream to that node from then on. Pure but for [`Door::connect`].

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::str::FromStr;
use std::time::Duration;

/// The environment variable that tells a child of its daemon's door.
pub const DOOR_VARIABLE: &str = "MESH_LLM_DOOR";

/// Names of nodes behind a door begin with it.
pub const SCHEME: &str = "mesh:";

/// Bytes of a [`Key`].
pub const KEY_BYTES: usize = 32;

/// What a child knocks with, which other users of the machine do not know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; KEY_BYTES]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Where a door is, and what opens it; written `ADDRESS:PORT/KEY`, the key in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Door {
    /// On loopback.
    pub address: SocketAddr,
    /// What a child knocks with.
    pub key: Key,
}

/// Words that are no [`Door`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{DOOR_VARIABLE} is for processes that mesh-llm starts itself, and its value is none of a door")]
pub struct BadDoor;

impl FromStr for Door {
    type Err = BadDoor;

    fn from_str(words: &str) -> Result<Self, BadDoor> {
        let (address, digits) = words.split_once('/').ok_or(BadDoor)?;
        if digits.len() != 2 * KEY_BYTES || !digits.is_ascii() {
            return Err(BadDoor);
        }
        let mut key = [0; KEY_BYTES];
        for (byte, at) in key.iter_mut().zip((0..digits.len()).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| BadDoor)?;
        }
        Ok(Self {
            address: address.parse().map_err(|_| BadDoor)?,
            key: Key(key),
        })
    }
}

/// As it is in [`DOOR_VARIABLE`], key and all.
impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.address)?;
        self.key.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How people see an address of a worker: of a node behind a door, its label.
pub fn shown(address: &str) -> &str {
    match address.strip_prefix(SCHEME) {
        Some(name) => name.rsplit('/').next().unwrap_or(name),
        None => address,
    }
}

/// What is said to a door first: its key, and a name with its length in front. A name of more than 255 bytes is cut,
/// and then nobody's.
pub fn knock(key: Key, name: &str) -> Vec<u8> {
    let name = &name.as_bytes()[..name.len().min(u8::MAX.into())];
    let length = [name.len() as u8];
    [&key.0, length.as_slice(), name].concat()
}

/// A door's answer: nothing where it is open, else why not, with its length in front.
pub fn answer(refusal: Option<&str>) -> Vec<u8> {
    let words = match refusal {
        None => "",
        Some("") => "no reason is given",
        Some(words) => &words[..words.floor_char_boundary(u8::MAX.into())],
    };
    [&[words.len() as u8], words.as_bytes()].concat()
}

impl Door {
    /// A stream to the node of this name, which has to be there within `patience`.
    ///
    /// # Errors
    /// Where the daemon does not reach it, or lets nobody reach it by this door.
    pub fn connect(&self, name: &str, patience: Duration) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&self.address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(&knock(self.key, name))?;
        let mut length = [0];
        stream.read_exact(&mut length)?;
        let mut words = vec![0; length[0].into()];
        stream.read_exact(&mut words)?;
        stream.set_read_timeout(None)?;
        match words.is_empty() {
            true => Ok(stream),
            false => Err(io::Error::new(
                io::ErrorKind::HostUnreachable,
                String::from_utf8_lossy(&words).into_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn door(address: SocketAddr) -> Door {
        Door {
            address,
            key: Key([0xa7; KEY_BYTES]),
        }
    }

    #[test]
    fn a_door_is_read_as_it_is_written() {
        for address in ["127.0.0.1:4", "[::1]:65535"] {
            let door = door(address.parse().unwrap());
            assert_eq!(door.to_string().parse(), Ok(door));
        }
        let whole = door("127.0.0.1:4".parse().unwrap()).to_string();
        for bad in [
            "",
            "127.0.0.1:4",
            "127.0.0.1:4/",
            "x/00",
            &whole[..70],
            &whole.replace("a7", "aé"),
        ] {
            assert_eq!(bad.parse::<Door>(), Err(BadDoor), "{bad}");
        }
        assert!(!format!("{:?}", whole.parse::<Door>().unwrap()).contains("a7"));
    }

    #[test]
    fn people_see_labels() {
        assert_eq!(shown("10.0.0.2:9338"), "10.0.0.2:9338");
        assert_eq!(shown("mesh:aa/bb/kitchen"), "kitchen");
    }

    #[test]
    fn who_is_let_in_has_the_stream_and_who_is_not_hears_why() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let door = door(listener.local_addr().unwrap());
        let daemon = thread::spawn(move || {
            for refusal in [None, Some("kitchen is gone")] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut said = vec![0; knock(door.key, "mesh:a/b/c").len()];
                stream.read_exact(&mut said).unwrap();
                assert_eq!(said, knock(door.key, "mesh:a/b/c"));
                stream.write_all(&answer(refusal)).unwrap();
                stream.write_all(b"more").unwrap();
            }
        });
        let patience = Duration::from_secs(10);
        let mut stream = door.connect("mesh:a/b/c", patience).unwrap();
        let mut more = [0; 4];
        stream.read_exact(&mut more).unwrap();
        assert_eq!(&more, b"more");
        let refused = door.connect("mesh:a/b/c", patience).unwrap_err();
        assert_eq!(refused.to_string(), "kitchen is gone");
        daemon.join().unwrap();
    }

    #[test]
    fn nothing_is_too_long_for_a_door() {
        assert_eq!(knock(Key([1; 32]), &"x".repeat(1000)).len(), 32 + 1 + 255);
        assert_eq!(answer(Some(&"é".repeat(1000))).len(), 1 + 254);
    }
}
