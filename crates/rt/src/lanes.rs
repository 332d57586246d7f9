//! Threads that each serve many connections, and are woken once for several of them.
//!
//! An idle cluster sends its manager hundreds of small requests a second, each on a connection of
//! its own. Waking a thread costs more than answering one of them, and a runtime with several
//! threads wakes two for each. So such connections are spread over a few threads with a runtime of
//! their own, where a request is read, served and answered without leaving the thread (`serve`),
//! and the sockets of a thread are looked at together (`gather`).
//!
//! Owns the threads, their sockets and the HTTP/2 on them. Does not own what is served.

mod echoes;
mod gather;
mod serve;
mod socket;

use std::io;
use std::num::NonZero;

use tokio::sync::oneshot;

pub(crate) use gather::Gatherer;
pub use serve::{Express, Keepalive, serve};
pub(crate) use socket::Socket;

use crate::tasks::TaskError;
use crate::{OnError, Tasks};

/// More threads than this only spread the load thinner.
const LANES_MAX: usize = 4;

/// How many lanes a machine gets: half of its processors, as the other half has other work.
pub fn count() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    (processors / 2).clamp(1, LANES_MAX)
}

/// One thread with its sockets. Clones share them.
#[derive(Clone, Debug)]
pub struct Lane {
    gatherer: Gatherer,
}

impl Lane {
    /// A lane without a thread; its sockets stand still until [`Lane::spawn`].
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let gatherer = Gatherer::new()?;
        Ok(Self { gatherer })
    }

    pub(crate) fn gatherer(&self) -> &Gatherer {
        &self.gatherer
    }

    /// Starts the thread. It runs what `begin` returns with everything that this spawns, and ends
    /// with it, or with the group of tasks.
    pub fn spawn<F>(
        &self,
        tasks: &Tasks,
        name: &'static str,
        begin: impl FnOnce() -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), TaskError>>,
    {
        let (sender, ended) = oneshot::channel();
        let gatherer = self.gatherer.clone();
        let thread = std::thread::Builder::new().name(name.to_owned());
        let started = thread.spawn(move || run(&gatherer, begin, sender));
        tasks.spawn(name, OnError::Stop, async move {
            started?;
            ended
                .await
                .unwrap_or_else(|_| Err(TaskError::from("the thread broke down")))
        });
    }
}

fn run<F>(
    gatherer: &Gatherer,
    begin: impl FnOnce() -> F,
    mut ended: oneshot::Sender<Result<(), TaskError>>,
) where
    F: Future<Output = Result<(), TaskError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = runtime.map_err(TaskError::from).and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                result = begin() => result,
                Err(error) = gatherer.run() => Err(TaskError::from(error)),
                // Whoever supervises the thread was cancelled.
                () = ended.closed() => Ok(()),
            }
        })
    });
    // Fails only when nobody asks any more.
    let _ = ended.send(result);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::Shutdown;

    /// Has everything that arrives on a connection sent back by a lane, until its end.
    async fn echo(tasks: &Tasks) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let lane = Lane::new().unwrap();
        let mut socket = Socket::Own(server);
        socket.hand_over(lane.gatherer()).unwrap();
        lane.spawn(tasks, "lane", || async move {
            let (mut reader, mut writer) = tokio::io::split(socket);
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await?;
            Ok(())
        });
        client
    }

    #[tokio::test]
    async fn a_lane_answers_one_small_message_after_the_other() {
        let tasks = Tasks::new(Shutdown::new());
        let mut client = echo(&tasks).await;
        for number in 0..20_u8 {
            client.write_all(&[number; 70]).await.unwrap();
            let mut answer = [0; 70];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, [number; 70]);
        }
        client.shutdown().await.unwrap();
        assert_eq!(
            client.read(&mut [0]).await.unwrap(),
            0,
            "the end comes back"
        );
        tasks.finish(Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test]
    async fn a_lane_carries_more_than_the_system_holds_for_it() {
        let tasks = Tasks::new(Shutdown::new());
        let client = echo(&tasks).await;
        let sent: Vec<u8> = (0..16 << 20).map(|number: u32| number as u8).collect();
        let (mut reader, mut writer) = client.into_split();
        let mut read = Vec::new();
        let write = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let (_, ()) = tokio::join!(reader.read_to_end(&mut read), write);
        assert!(read == sent, "{} of {} bytes", read.len(), sent.len());
        tasks.finish(Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test]
    async fn a_lane_that_breaks_down_stops_its_group() {
        let tasks = Tasks::new(Shutdown::new());
        let lane = Lane::new().unwrap();
        lane.spawn(&tasks, "lane", || async { panic!("on purpose") });
        tasks.shutdown().begun().await;
        let error = tasks.finish(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "the thread broke down");
    }

    #[tokio::test]
    async fn a_lane_that_does_not_stop_is_cancelled_with_its_group() {
        struct Told(Option<oneshot::Sender<()>>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.take().map(|sender| sender.send(()));
            }
        }
        let tasks = Tasks::new(Shutdown::new());
        let (sender, dropped) = oneshot::channel();
        let (begins, begun) = oneshot::channel();
        let lane = Lane::new().unwrap();
        lane.spawn(&tasks, "lane", || async {
            let _told = Told(Some(sender));
            begins.send(()).unwrap();
            std::future::pending().await
        });
        // A thread that gets no time until its group has ended has nothing to be cancelled.
        begun.await.unwrap();
        tasks.finish(Duration::from_millis(100)).await.unwrap();
        dropped.await.unwrap();
    }
}
