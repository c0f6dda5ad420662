//! The socket file that mappers dial.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Owner and group: whoever may write to it can speak for every device of this edge.
const MODE: u32 = 0o660;

/// A listening socket whose file goes when this does.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Its device and number, so that another's file of the same name stays.
    file: (u64, u64),
}

impl Socket {
    /// Listens at `path`. A file that a killed process left is replaced; a socket that somebody answers on is not.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        check_free(path)?;
        // Under another name until its mode is right: nobody gets in before.
        let mut draft = path.as_os_str().to_owned();
        draft.push("~");
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&draft)?;
        fs::set_permissions(&draft, Permissions::from_mode(MODE))?;
        fs::rename(&draft, path)?;
        let file = identity(path)?;
        Ok(Self { listener, path: path.to_owned(), file })
    }
}

fn check_free(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => {
            Err(io::Error::new(ErrorKind::AddrInUse, "another process serves it (KubeEdge's edgecore?)"))
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|there| (there.dev(), there.ino()))
}

impl Drop for Socket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            // What is left here is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}
