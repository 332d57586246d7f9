//! Looks at many sockets together.
//!
//! The sockets of a lane are in a set of the kernel's (`epoll`) which the runtime does not know.
//! While requests come one by one, a lane looks at its set, serves what has arrived, and then
//! sleeps for [`PAUSE`] before it looks again, so that one wake-up serves all that comes in the
//! meantime. It does not pause
//!
//! * when requests come more seldom than that: each is served at once;
//! * when more than a heartbeat travels in either direction ([`BULK_BYTES`]), or a call comes that
//!   is not answered on the spot: there is work, which must not wait. A pause that has begun ends
//!   at that moment, and there is none for [`HURRY`];
//! * when more sockets have something than fit into one look.
//!
//! While it pauses at all, what clients send in reaction to answers waits for their next call
//! ([`super::echoes`]).
//!
//! Everything that does not come through these sockets (messages from other threads, timers) goes
//! through the runtime, and is not held up.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::echoes::{Echoes, Millis, REACTION_BYTES_MAX, is_reaction, millis};

/// Between two looks at quiet sockets: how long a heartbeat may wait for its answer. Agents wait
/// five seconds; a thousand of them at the default period send twenty heartbeats in this time.
/// Most of what a wake-up costs is that the processor has forgotten the code by then.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// A read or write of so many bytes is not a heartbeat.
pub(super) const BULK_BYTES: usize = 512;
/// How long there is no pause after such a one. A node that has got a task tells how far it is in
/// small messages, and it is in this time that somebody looks at the cluster.
const HURRY: Duration = Duration::from_secs(1);
/// Sockets that one look takes.
const EVENTS_MAX: usize = 256;

/// The sockets of one lane. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Gatherer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    set: Epoll,
    entries: Mutex<Entries>,
    echoes: Mutex<Echoes>,
    hurry: Notify,
    since: Instant,
    /// Until when there is no pause, in milliseconds from `since`.
    hurry_until: AtomicU64,
    is_pausing: AtomicBool,
}

#[derive(Debug, Default)]
struct Entries {
    last: u64,
    by_key: HashMap<u64, Arc<Entry>>,
}

/// A socket and what is known of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) stream: TcpStream,
    sides: [Mutex<Side>; 2],
    /// When something small went out, after which nothing has come; [`NEVER`] otherwise.
    answered: AtomicU64,
    /// When something large moved, or it was opened.
    busy: AtomicU64,
    /// There is something that stays unread.
    is_left: AtomicBool,
}

const NEVER: Millis = Millis::MAX;

/// A direction of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read = 0,
    Write = 1,
}

/// How far a direction is.
#[derive(Debug, Default)]
struct Side {
    is_blocked: bool,
    /// The other end has closed it: there is no more news to wait for.
    is_over: bool,
    /// Counts news, so that one which comes while the socket is tried is not forgotten.
    news: u32,
    waker: Option<Waker>,
}

/// For [`Entry::block`]: the news that was known when a socket was tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen(u32);

/// The set as something that the runtime can wait for.
struct Bell(Gatherer);

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.inner.set.0.as_raw_fd()
    }
}

impl Bell {
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for descriptors that close or change while they are \
                  registered; ours is open and the same for as long as the gatherer is there, and \
                  the bell holds that"
    )]
    fn register(self) -> io::Result<AsyncFd<Self>> {
        AsyncFd::with_interest(self, Interest::READABLE)
    }
}

impl Gatherer {
    pub(super) fn new() -> io::Result<Self> {
        Self::since(Instant::now())
    }

    /// One whose clock shows what has passed since then.
    fn since(since: Instant) -> io::Result<Self> {
        let inner = Inner {
            set: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            entries: Mutex::default(),
            echoes: Mutex::default(),
            hurry: Notify::new(),
            since,
            hurry_until: AtomicU64::new(0),
            is_pausing: AtomicBool::new(false),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Takes a socket in. Its key is for [`Gatherer::remove`].
    pub(super) fn add(&self, stream: TcpStream) -> io::Result<(u64, Arc<Entry>)> {
        let entry = Arc::new(Entry::new(stream, self.now()));
        let key = {
            let mut entries = self.entries();
            entries.last += 1;
            let key = entries.last;
            entries.by_key.insert(key, Arc::clone(&entry));
            key
        };
        let flags = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        let added = self
            .inner
            .set
            .add(&entry.stream, EpollEvent::new(flags, key));
        if let Err(error) = added {
            self.entries().by_key.remove(&key);
            return Err(error.into());
        }
        Ok((key, entry))
    }

    pub(super) fn remove(&self, entry: &Entry, key: u64) {
        // Fails only if the socket is not in the set.
        let _ = self.inner.set.delete(entry.stream.as_fd());
        self.entries().by_key.remove(&key);
    }

    /// Takes notice of so many bytes that were read or written at once.
    pub(super) fn moved(&self, entry: &Entry, direction: Direction, bytes: usize) {
        if bytes >= BULK_BYTES {
            self.hurry();
            entry.busy.store(self.now(), Ordering::Release);
            // Its estimate of the bandwidth matters now.
            entry.read_what_is_left();
        } else if direction == Direction::Write {
            entry.answered.store(self.now(), Ordering::Release);
        }
    }

    fn now(&self) -> Millis {
        millis(self.inner.since.elapsed())
    }

    /// There is more going on than heartbeats.
    pub(super) fn hurry(&self) {
        let until = self.inner.since.elapsed().saturating_add(HURRY);
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.inner.hurry_until.store(until, Ordering::Release);
        if self.inner.is_pausing.load(Ordering::Acquire) {
            self.inner.hurry.notify_one();
        }
    }

    /// Serves the sockets for as long as the lane lives. Has to run on the lane's own runtime.
    pub(super) async fn run(&self) -> Result<Infallible, io::Error> {
        let mut events = vec![EpollEvent::empty(); EVENTS_MAX];
        let mut bell = None;
        let mut is_dense = false;
        loop {
            self.read_what_is_due(self.now());
            match self.look(&mut events, is_dense && !self.is_in_a_hurry())? {
                0 => {
                    let since = Instant::now();
                    self.wait(&mut bell).await?;
                    is_dense = since.elapsed() < PAUSE;
                }
                some if some < EVENTS_MAX && is_dense && !self.is_in_a_hurry() => {
                    // Otherwise each piece of news would wake the runtime.
                    bell = None;
                    self.pause().await;
                }
                _ => tokio::task::yield_now().await,
            }
        }
    }

    /// Wakes whoever waits for sockets with news, unless that `may_wait` and can; how many sockets
    /// have news.
    fn look(&self, events: &mut [EpollEvent], may_wait: bool) -> io::Result<usize> {
        let count = match self.inner.set.wait(events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            let entry = self.entries().by_key.get(&event.data()).cloned();
            let Some(entry) = entry else { continue };
            if may_wait && self.can_wait(event.data(), &entry, event.events()) {
                entry.is_left.store(true, Ordering::Release);
            } else {
                entry.is_left.store(false, Ordering::Release);
                entry.handle(event.events());
            }
        }
        Ok(count)
    }

    /// Whether news are nothing but the reaction to an answer, and there is room to leave it.
    fn can_wait(&self, key: u64, entry: &Entry, flags: EpollFlags) -> bool {
        let answered = entry.answered.swap(NEVER, Ordering::AcqRel);
        let now = self.now();
        let can_wait = answered != NEVER
            && is_reaction(entry.busy.load(Ordering::Acquire), answered, now)
            && (flags & !EpollFlags::EPOLLOUT) == EpollFlags::EPOLLIN
            && entry.is_waited_for()
            && entry.holds_at_most(REACTION_BYTES_MAX);
        can_wait && lock(&self.inner.echoes).leave(key, now)
    }

    fn read_what_is_due(&self, now: Millis) {
        loop {
            let Some(key) = lock(&self.inner.echoes).next_due(now) else {
                return;
            };
            let entry = self.entries().by_key.get(&key).cloned();
            if let Some(entry) = entry {
                entry.read_what_is_left();
            }
        }
    }

    /// Waits until a socket has news.
    async fn wait(&self, bell: &mut Option<AsyncFd<Bell>>) -> io::Result<()> {
        let bell = match bell {
            Some(bell) => bell,
            None => bell.insert(Bell(self.clone()).register()?),
        };
        let due = lock(&self.inner.echoes).due();
        let ready = match due {
            None => bell.readable().await,
            Some(due) => {
                let due = self.inner.since + Duration::from_millis(due);
                let ready = tokio::time::timeout_at(due.into(), bell.readable()).await;
                let Ok(ready) = ready else { return Ok(()) };
                ready
            }
        };
        // Cleared before the look and not after it, so that no news is lost between the two.
        ready?.clear_ready();
        Ok(())
    }

    async fn pause(&self) {
        self.inner.is_pausing.store(true, Ordering::Release);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = self.inner.hurry.notified() => {}
        }
        self.inner.is_pausing.store(false, Ordering::Release);
    }

    pub(crate) fn is_in_a_hurry(&self) -> bool {
        let until = self.inner.hurry_until.load(Ordering::Acquire);
        self.inner.since.elapsed().as_millis() < u128::from(until)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        lock(&self.inner.entries)
    }
}

impl Entry {
    fn new(stream: TcpStream, now: Millis) -> Self {
        Self {
            stream,
            busy: AtomicU64::new(now),
            sides: Default::default(),
            answered: AtomicU64::new(NEVER),
            is_left: AtomicBool::new(false),
        }
    }

    /// Whether somebody waits for something to read, and will be told.
    fn is_waited_for(&self) -> bool {
        let side = self.side(Direction::Read);
        side.is_blocked && !side.is_over && side.waker.is_some()
    }

    /// Whether no more than so many bytes have come.
    fn holds_at_most(&self, bytes: usize) -> bool {
        let mut room = [0; REACTION_BYTES_MAX + 1];
        let held = self.stream.peek(&mut room);
        // The end and what is broken are not left.
        held.is_ok_and(|held| (1..=bytes).contains(&held))
    }

    fn read_what_is_left(&self) {
        if self.is_left.swap(false, Ordering::AcqRel) {
            self.tell(Direction::Read, false);
        }
    }

    /// Whether it is worth trying the socket; if not, the waker is woken when it is.
    pub(super) fn try_or_wait(&self, direction: Direction, waker: &Waker) -> Option<Seen> {
        let mut side = self.side(direction);
        if !side.is_blocked {
            return Some(Seen(side.news));
        }
        match &mut side.waker {
            Some(known) => known.clone_from(waker),
            None => side.waker = Some(waker.clone()),
        }
        None
    }

    /// The socket has nothing more, as far as was known when it was tried. `is_certain` when it
    /// said so itself.
    pub(super) fn block(&self, direction: Direction, seen: Seen, is_certain: bool) {
        let mut side = self.side(direction);
        if side.news == seen.0 && (is_certain || !side.is_over) {
            side.is_blocked = true;
        }
    }

    fn handle(&self, flags: EpollFlags) {
        let over = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let read_over = over | EpollFlags::EPOLLRDHUP;
        if flags.intersects(EpollFlags::EPOLLIN | read_over) {
            self.tell(Direction::Read, flags.intersects(read_over));
        }
        if flags.intersects(EpollFlags::EPOLLOUT | over) {
            self.tell(Direction::Write, flags.intersects(over));
        }
    }

    fn tell(&self, direction: Direction, is_over: bool) {
        let waker = {
            let mut side = self.side(direction);
            side.news = side.news.wrapping_add(1);
            side.is_blocked = false;
            side.is_over |= is_over;
            side.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn side(&self, direction: Direction) -> MutexGuard<'_, Side> {
        lock(&self.sides[direction as usize])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// Both ends of a connection; the second is served.
    fn connected() -> (TcpStream, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        (far, near)
    }

    fn entry() -> Entry {
        Entry::new(connected().1, 0)
    }

    fn is_tried(entry: &Entry, direction: Direction) -> bool {
        entry.try_or_wait(direction, Waker::noop()).is_some()
    }

    #[test]
    fn news_that_comes_while_a_socket_is_tried_is_not_forgotten() {
        let entry = entry();
        let seen = entry.try_or_wait(Direction::Read, Waker::noop()).unwrap();
        entry.handle(EpollFlags::EPOLLIN);
        entry.block(Direction::Read, seen, true);
        assert!(is_tried(&entry, Direction::Read));
        let seen = entry.try_or_wait(Direction::Read, Waker::noop()).unwrap();
        entry.block(Direction::Read, seen, true);
        assert!(!is_tried(&entry, Direction::Read));
        entry.handle(EpollFlags::EPOLLOUT);
        assert!(
            !is_tried(&entry, Direction::Read),
            "that is about the other direction"
        );
        entry.handle(EpollFlags::EPOLLIN);
        assert!(is_tried(&entry, Direction::Read));
    }

    #[test]
    fn a_closed_socket_is_tried_until_it_says_itself_that_there_is_nothing() {
        let entry = entry();
        // The last bytes and the end in one piece of news.
        entry.handle(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP);
        let seen = entry.try_or_wait(Direction::Read, Waker::noop()).unwrap();
        entry.block(Direction::Read, seen, false);
        assert!(is_tried(&entry, Direction::Read), "the end is to be read");
        let seen = entry.try_or_wait(Direction::Write, Waker::noop()).unwrap();
        entry.block(Direction::Write, seen, false);
        assert!(!is_tried(&entry, Direction::Write), "it is open this way");
        entry.handle(EpollFlags::EPOLLHUP);
        assert!(is_tried(&entry, Direction::Write));
    }

    /// How long a pause was in which so many bytes move.
    async fn pause_with(bytes: usize) -> Duration {
        let gatherer = Gatherer::new().unwrap();
        let since = tokio::time::Instant::now();
        let entry = entry();
        let moved = async { gatherer.moved(&entry, Direction::Write, bytes) };
        tokio::join!(gatherer.pause(), moved);
        assert_eq!(gatherer.is_in_a_hurry(), bytes >= BULK_BYTES);
        since.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_when_an_assignment_goes_out_and_not_for_a_heartbeat() {
        assert!(pause_with(BULK_BYTES - 1).await >= PAUSE);
        assert_eq!(pause_with(BULK_BYTES).await, Duration::ZERO);
    }

    #[test]
    fn bytes_outside_of_a_pause_do_not_shorten_a_later_one() {
        let gatherer = Gatherer::new().unwrap();
        gatherer.moved(&entry(), Direction::Read, BULK_BYTES);
        let mut noticed = std::pin::pin!(gatherer.inner.hurry.notified());
        let mut context = std::task::Context::from_waker(Waker::noop());
        assert!(noticed.as_mut().poll(&mut context).is_pending());
    }

    /// A socket whose task has read everything, and who is at the other end of it.
    struct Served {
        gatherer: Gatherer,
        entry: Arc<Entry>,
        far: TcpStream,
        woken: Arc<Woken>,
    }

    #[derive(Default)]
    struct Woken(AtomicU64);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Entry {
        /// Nothing large has moved since the clock began.
        fn rest(&self) {
            self.busy.store(0, Ordering::SeqCst);
        }
    }

    impl Served {
        fn new() -> Self {
            let (far, near) = connected();
            let since = Instant::now() - Duration::from_secs(60);
            let gatherer = Gatherer::since(since).unwrap();
            let (_, entry) = gatherer.add(near).unwrap();
            entry.rest();
            let served = Self {
                gatherer,
                entry,
                far,
                woken: Arc::default(),
            };
            // That it can be written is news.
            served.look(false);
            served
        }

        /// The task reads until there is nothing more, and waits.
        fn wait(&self) {
            let mut room = [0; 4096];
            while (&self.entry.stream)
                .read(&mut room)
                .is_ok_and(|read| read > 0)
            {}
            let seen = self.entry.try_or_wait(Direction::Read, Waker::noop());
            self.entry.block(Direction::Read, seen.unwrap(), true);
            let waker = Waker::from(Arc::clone(&self.woken));
            assert!(self.entry.try_or_wait(Direction::Read, &waker).is_none());
        }

        fn answer(&self, bytes: usize) {
            (&self.entry.stream).write_all(&vec![1; bytes]).unwrap();
            self.gatherer.moved(&self.entry, Direction::Write, bytes);
        }

        /// Looks until there is news; whether that woke the task.
        fn look(&self, may_wait: bool) -> bool {
            let before = self.woken.0.load(Ordering::SeqCst);
            let mut events = [EpollEvent::empty(); 4];
            let deadline = Instant::now() + Duration::from_secs(60);
            while self.gatherer.look(&mut events, may_wait).unwrap() == 0 {
                assert!(Instant::now() < deadline, "no news of the socket");
                std::thread::yield_now();
            }
            self.woken.0.load(Ordering::SeqCst) > before
        }

        fn comes(&mut self, bytes: usize) -> bool {
            self.far.write_all(&vec![2; bytes]).unwrap();
            self.look(true)
        }
    }

    #[test]
    fn what_follows_an_answer_is_read_with_the_next_call() {
        let mut served = Served::new();
        for _ in 0..3 {
            served.wait();
            served.answer(70);
            assert!(!served.comes(52), "a PING waits");
            assert!(served.comes(120), "a call does not");
        }
    }

    #[test]
    fn what_comes_by_itself_or_is_long_enough_for_a_call_is_read_at_once() {
        let mut served = Served::new();
        served.wait();
        assert!(served.comes(52), "it follows no answer");
        served.wait();
        served.answer(70);
        assert!(served.comes(REACTION_BYTES_MAX + 1));
        served.wait();
        served.answer(70);
        served.far.write_all(&[2; 52]).unwrap();
        assert!(served.look(false), "there is no pause");
        served.wait();
        served.answer(70);
        served.far.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(served.look(true), "the end");
    }

    #[test]
    fn what_is_left_is_read_when_its_time_is_over_or_the_answer_gets_long() {
        let mut served = Served::new();
        let read = |served: &Served| served.woken.0.load(Ordering::SeqCst);
        served.wait();
        served.answer(70);
        assert!(!served.comes(52));
        let due = lock(&served.gatherer.inner.echoes).due().unwrap();
        served.gatherer.read_what_is_due(due - 1);
        assert_eq!(read(&served), 0);
        served.gatherer.read_what_is_due(due);
        assert_eq!(read(&served), 1);
        served.wait();
        served.answer(70);
        assert!(!served.comes(52));
        served.answer(BULK_BYTES);
        assert_eq!(read(&served), 2);
        served.wait();
        served.answer(70);
        assert!(served.comes(52), "there may be more that waits for room");
        served.entry.rest();
        served.gatherer.read_what_is_due(Millis::MAX);
        assert_eq!(read(&served), 3, "it was read");
    }
}
