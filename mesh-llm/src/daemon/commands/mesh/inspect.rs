//! Tells what a token allows. Its form is the mesh's to know, which is not here yet.

use super::{Error, Out};
use crate::daemon::settings::Hidden;

/// Shows what `token` allows, without asking a daemon.
pub(super) fn inspect(_token: &Hidden, _out: Out) -> Result<(), Error> {
    Err(Error::NotInspected)
}
