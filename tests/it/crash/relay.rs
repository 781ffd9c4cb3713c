//! Stands between the servers and their target, and does to connections what networks do.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How PostgreSQL says that a transaction is done: the tag of `CommandComplete`.
const COMMITTED: &[u8] = b"COMMIT\0";

/// What happens to what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Nothing,
    /// Connections are reset, those that are open too.
    Reset,
    /// The target hears everything, and nothing of what it says arrives until this is over.
    Late,
    /// A connection is reset when the target says on it that it has committed.
    CutAtCommit,
}

/// A relay; it ends with its value.
pub struct Relay {
    port: u16,
    fault: watch::Sender<Fault>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Passes everything on to that port.
    pub async fn before(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let fault = watch::Sender::new(Fault::Nothing);
        let faults = fault.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let faults = faults.subscribe();
                tokio::spawn(async move {
                    // However it ends, both connections end with it.
                    let _ = pass(client, target, faults).await;
                });
            }
        });
        Self { port, fault, task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut client: TcpStream,
    target: u16,
    mut faults: watch::Receiver<Fault>,
) -> io::Result<()> {
    if *faults.borrow_and_update() == Fault::Reset {
        return client.set_zero_linger();
    }
    let mut server = TcpStream::connect(("127.0.0.1", target)).await?;
    let (mut asked, mut said) = (vec![0; 16_384], vec![0; 16_384]);
    loop {
        let fault = *faults.borrow_and_update();
        tokio::select! {
            changed = faults.changed() => {
                let gone = changed.is_err();
                if gone || *faults.borrow() == Fault::Reset {
                    return client.set_zero_linger();
                }
            }
            length = client.read(&mut asked) => match length? {
                0 => return Ok(()),
                length => server.write_all(&asked[..length]).await?,
            },
            length = server.read(&mut said), if fault != Fault::Late => match length? {
                0 => return Ok(()),
                length => {
                    let said = &said[..length];
                    let committed = said.windows(COMMITTED.len()).any(|part| part == COMMITTED);
                    if fault == Fault::CutAtCommit && committed {
                        return client.set_zero_linger();
                    }
                    client.write_all(said).await?;
                }
            },
        }
    }
}
