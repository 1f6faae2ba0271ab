//! Files: a directory whose files browsers may have.
//!
//! Promise: what is given lies in the directory, also after every link was followed, and no part
//! of its real name begins with a dot or is the `data` of its top. Refused: all else, as if it
//! were not there.

use std::io;
use std::path::{Component, Path, PathBuf};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use gateway::{File, Files};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use crate::limits::STATIC_PIECE_BYTES;

/// The directory.
#[derive(Debug)]
pub(crate) struct StaticFiles {
    /// Its real name.
    root: PathBuf,
}

impl StaticFiles {
    /// The files of this directory.
    ///
    /// # Errors
    /// Where there is no such directory.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let root = dir.canonicalize()?;
        if !root.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self { root })
    }
}

impl Files for StaticFiles {
    fn open(&self, name: String) -> BoxFuture<'static, Option<File>> {
        Box::pin(read(self.root.clone(), name))
    }
}

async fn read(root: PathBuf, name: String) -> Option<File> {
    let path = tokio::fs::canonicalize(root.join(name)).await.ok()?;
    if !may_be_had(path.strip_prefix(&root).ok()?) {
        return None;
    }
    // Anything but a file, a pipe for one, might never be opened.
    if !tokio::fs::metadata(&path).await.ok()?.is_file() {
        return None;
    }
    let file = match tokio::fs::File::open(&path).await {
        Ok(file) => file,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a file for browsers cannot be read");
            return None;
        }
    };
    let metadata = file.metadata().await.ok()?;
    let bytes = metadata.len();
    // A file that grows meanwhile is given as long as it was said to be.
    let content = ReaderStream::with_capacity(file.take(bytes), STATIC_PIECE_BYTES).boxed();
    Some(File { bytes, modified: metadata.modified().ok(), content })
}

/// Whether a real name, relative to the directory, is one for browsers.
fn may_be_had(relative: &Path) -> bool {
    let is_hidden = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b".");
    !relative.starts_with("data") && !relative.components().any(is_hidden)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use futures::TryStreamExt as _;

    use super::*;

    async fn text(files: &StaticFiles, name: &str) -> Option<String> {
        let file = Files::open(files, name.to_owned()).await?;
        let pieces: Vec<_> = file.content.try_collect().await.unwrap();
        let text = String::from_utf8(pieces.concat()).unwrap();
        assert_eq!(text.len() as u64, file.bytes);
        Some(text)
    }

    #[tokio::test]
    async fn files_are_given_and_nothing_outside_of_the_directory_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("static");
        std::fs::create_dir_all(root.join("pos")).unwrap();
        std::fs::create_dir_all(root.join("data")).unwrap();
        let write = |path: &str| std::fs::write(dir.path().join(path), path).unwrap();
        for path in ["static/pos/app.js", "static/.env", "static/data/modules.json", "secret"] {
            write(path);
        }
        symlink(dir.path().join("secret"), root.join("out")).unwrap();
        symlink(dir.path(), root.join("up")).unwrap();
        symlink(root.join(".env"), root.join("env")).unwrap();
        symlink(root.join("data"), root.join("pos/config")).unwrap();
        symlink(root.join("pos/app.js"), root.join("app.js")).unwrap();
        let files = StaticFiles::open(&root).unwrap();
        assert_eq!(text(&files, "pos/app.js").await.unwrap(), "static/pos/app.js");
        assert_eq!(text(&files, "app.js").await.unwrap(), "static/pos/app.js", "a link inside");
        for name in ["pos", "none", "out", "up/secret", "env", "pos/config/modules.json"] {
            assert!(text(&files, name).await.is_none(), "{name}");
        }
        assert!(StaticFiles::open(&root.join("none")).is_err());
        assert!(StaticFiles::open(&root.join("app.js")).is_err());
    }
}
