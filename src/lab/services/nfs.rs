//! File service over the network: NFS version 3, server and client both in this process's own
//! code, since a kernel's NFS cannot be had in a namespace without privileges.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nfs3_client::nfs3_types::nfs3::{
    LOOKUP3args, LOOKUP3res, READ3args, READ3res, diropargs3, filename3, nfs_fh3,
};
use nfs3_client::tokio::{TokioConnector, TokioIo};
use nfs3_client::{Nfs3Connection, Nfs3ConnectionBuilder};
use nfs3_server::memfs::{MemFs, MemFsConfig};
use nfs3_server::tcp::{NFSTcp, NFSTcpListener};
use tokio::net::TcpStream;

/// Starts a server for `files` (absolute paths and contents) on a thread of its own, which lives
/// as long as the process. When this returns, it is listening.
pub fn serve(listen: SocketAddr, files: &[(String, String)]) -> io::Result<()> {
    let config = tree(files);
    let (started, starting) = mpsc::channel();
    thread::Builder::new().name("nfs".to_owned()).spawn(move || {
        let result = runtime().and_then(|runtime| {
            runtime.block_on(async {
                let files = MemFs::new(config).map_err(|e| io::Error::other(format!("{e:?}")))?;
                let listener = NFSTcpListener::bind(&listen.to_string(), files).await?;
                // The one who waits is told, or is gone.
                let _ = started.send(Ok(()));
                listener.handle_forever().await
            })
        });
        if let Err(error) = result {
            let _ = started.send(Err(error));
        }
    })?;
    starting.recv().map_err(|_| io::Error::other("the NFS server ended at once"))?
}

/// Reads a whole file from a server.
///
/// **Errors** — the server's refusals with the path; also when it says nothing for 10 s, or the
/// file is larger than 16 MiB.
pub fn fetch(server: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let describe = |why: String| io::Error::other(format!("nfs://{server}{path}: {why}"));
    runtime()?.block_on(async {
        match tokio::time::timeout(PATIENCE, fetch_file(server, path)).await {
            Ok(result) => result.map_err(describe),
            Err(_) => Err(describe(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    })
}

const PATIENCE: Duration = Duration::from_secs(10);
const MAX_FILE_BYTES: usize = 16 << 20;
const READ_BYTES: u32 = 64 << 10;

/// Every directory before what is in it, as the server's tree wants it.
fn tree(files: &[(String, String)]) -> MemFsConfig {
    let mut config = MemFsConfig::default();
    let mut known: Vec<String> = Vec::new();
    for (path, content) in files {
        for (slash, _) in path.match_indices('/').skip(1) {
            let directory = &path[..slash];
            if !known.iter().any(|before| before == directory) {
                config.add_dir(directory);
                known.push(directory.to_owned());
            }
        }
        config.add_file(path, content.as_bytes());
    }
    config
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

type Connection = Nfs3Connection<TokioIo<TcpStream>>;

async fn fetch_file(server: SocketAddr, path: &str) -> Result<Vec<u8>, String> {
    let Some((directory, name)) = path.rsplit_once('/') else {
        return Err("the path has no directory".to_owned());
    };
    let directory = if directory.is_empty() { "/" } else { directory };
    let mut connection =
        Nfs3ConnectionBuilder::new(TokioConnector, server.ip().to_string(), directory)
            .mount_port(server.port())
            .nfs3_port(server.port())
            .mount()
            .await
            .map_err(|e| format!("mount {directory}: {e}"))?;
    let file = look_up(&mut connection, name).await?;
    let content = read_all(&mut connection, file).await?;
    connection.unmount().await.map_err(|e| format!("unmount: {e}"))?;
    Ok(content)
}

async fn look_up(connection: &mut Connection, name: &str) -> Result<nfs_fh3, String> {
    let dir = connection.root_nfs_fh3();
    let name = filename3::from(name.as_bytes().to_vec());
    let asked = connection.lookup(&LOOKUP3args { what: diropargs3 { dir, name } }).await;
    match asked.map_err(|e| format!("lookup: {e}"))? {
        LOOKUP3res::Ok(found) => Ok(found.object),
        LOOKUP3res::Err((status, _)) => Err(format!("lookup: {status:?}")),
    }
}

async fn read_all(connection: &mut Connection, file: nfs_fh3) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    loop {
        let offset = content.len() as u64;
        let asked =
            connection.read(&READ3args { file: file.clone(), offset, count: READ_BYTES }).await;
        let piece = match asked.map_err(|e| format!("read: {e}"))? {
            READ3res::Ok(piece) => piece,
            READ3res::Err((status, _)) => return Err(format!("read: {status:?}")),
        };
        content.extend_from_slice(&piece.data);
        if piece.eof {
            return Ok(content);
        }
        if piece.data.is_empty() || content.len() > MAX_FILE_BYTES {
            return Err("the file does not end".to_owned());
        }
    }
}
