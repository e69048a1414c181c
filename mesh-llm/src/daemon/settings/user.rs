//! Where this user's files are.

use std::path::PathBuf;

/// Directories of the user who runs the daemon.
#[derive(Debug, Clone, Default)]
pub struct UserFolders {
    /// The home directory.
    pub home: Option<PathBuf>,
    /// Where the platform keeps the state of this program.
    pub state: Option<PathBuf>,
}

impl UserFolders {
    /// Those of the current user, by XDG where that applies.
    pub fn current() -> Self {
        Self {
            home: directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned()),
            state: directories::ProjectDirs::from("", "", "mesh-llm").map(|dirs| {
                dirs.state_dir()
                    .unwrap_or_else(|| dirs.data_local_dir())
                    .to_owned()
            }),
        }
    }
}
