//! Why this machine has no part in a mesh.

use super::identity::IdentityError;
use super::net::EndpointError;
use super::store::StoreError;
use std::path::PathBuf;

/// Why this machine has no part in a mesh.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// Its key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What it keeps.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its port.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// There is no mesh that it could use.
    #[error("--client uses a mesh that other machines make: give it an invite token of one with --join")]
    NoMesh,
    /// It belongs to others.
    #[error(
        "this machine belongs to another mesh, which {others} other members know: to join a second one, give it a state \
         directory of its own with MESH_LLM_HOME; to leave the first for good, remove {}",
        folder.display()
    )]
    Elsewhere {
        /// How many others there are.
        others: usize,
        /// What would have to go.
        folder: PathBuf,
    },
}
