//! The thread that keeps the view current.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::dump::{self, Dirty};
use crate::link::HostView;

/// The current view of the host, for any number of readers. Ends with its last owner.
#[derive(Debug)]
pub struct HostWatch {
    shared: Arc<Shared>,
    /// Asks the thread to look at what has changed until now; dropped to end it.
    questions: UnboundedSender<Question>,
}

/// Answered when the view is as the host was when it was asked.
type Question = SyncSender<()>;

#[derive(Debug)]
struct Shared {
    epoch: AtomicU64,
    view: Mutex<Arc<HostView>>,
}

impl HostWatch {
    /// Looks at the calling thread's network namespace, and goes on watching it. What is an address
    /// of the device with the number `own` is the director's, not the kernel's.
    pub fn start(own: Option<u32>) -> io::Result<Self> {
        let (questions, asked) = unbounded_channel();
        let (first, ready) = std::sync::mpsc::sync_channel(1);
        let shared = Arc::new(Shared { epoch: AtomicU64::new(0), view: Mutex::default() });
        let watched = Arc::clone(&shared);
        std::thread::Builder::new().name("ulvs-host".into()).spawn(move || {
            let started = first.clone();
            if let Err(error) = watch(&watched, own, started, asked) {
                // Nobody waits any more if the first look had succeeded.
                let _late = first.try_send(Err(error));
            }
        })?;
        ready.recv().map_err(io::Error::other)??;
        Ok(Self { shared, questions })
    }

    /// Waits until the view shows what has changed until now; for so long at most.
    pub fn catch_up(&self, patience: Duration) {
        let (question, answer) = std::sync::mpsc::sync_channel(1);
        if self.questions.send(question).is_ok() {
            // The thread goes on without whoever does not wait any longer.
            let _late = answer.recv_timeout(patience);
        }
    }

    /// Grows with every change.
    pub fn epoch(&self) -> u64 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    /// The view as it is now.
    pub fn view(&self) -> Arc<HostView> {
        Arc::clone(&self.shared.view.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shared {
    fn publish(&self, mut view: HostView) {
        let mut published = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.epoch = published.epoch;
        if *published.as_ref() == view {
            return;
        }
        view.epoch += 1;
        self.epoch.store(view.epoch, Ordering::Release);
        *published = Arc::new(view);
    }
}

fn watch(
    shared: &Shared,
    own: Option<u32>,
    started: SyncSender<io::Result<()>>,
    mut questions: UnboundedReceiver<Question>,
) -> io::Result<()> {
    dump::runtime()?.block_on(async {
        let (connection, handle, mut news) = rtnetlink::new_multicast_connection(GROUPS)?;
        tokio::spawn(connection);
        let mut view = HostView { own_device: own, ..HostView::default() };
        dump::refresh(&handle, Dirty::ALL, &mut view).await?;
        shared.publish(view.clone());
        // The starter waits for this one message.
        let _gone = started.try_send(Ok(()));
        // What could not be asked for is asked for again.
        let mut behind = Dirty::NONE;
        loop {
            let (mut dirty, mut asked) = (behind, None);
            tokio::select! {
                first = news.next() => {
                    let Some((message, _)) = first else {
                        tracing::warn!("the kernel's notifications ended; routes are as of now");
                        return Ok(());
                    };
                    dirty = dirty | concerns(&message);
                    let more = tokio::time::timeout(COALESCE, questions.recv());
                    asked = more.await.ok().flatten();
                }
                question = questions.recv() => match question {
                    Some(question) => asked = Some(question),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(SETTINGS_PERIOD) => {}
            }
            if asked.is_some() {
                hear_all(&handle).await;
            }
            while let Ok((message, _)) = news.try_recv() {
                dirty = dirty | concerns(&message);
            }
            match dump::refresh(&handle, dirty, &mut view).await {
                Ok(()) => {
                    behind = Dirty::NONE;
                    shared.publish(view.clone());
                }
                Err(error) => {
                    behind = dirty;
                    tracing::warn!("cannot read the kernel's routes: {error}");
                }
            }
            if let Some(asked) = asked {
                // Whoever asked may have gone on.
                let _gone = asked.try_send(());
            }
        }
    })
}

/// Waits until the notifications are there of all that has happened. They come by the same socket as
/// the answer to a question, and in their order.
async fn hear_all(handle: &Handle) {
    let mut loopback = handle.link().get().match_index(LOOPBACK).execute();
    // An error is an answer as well.
    while let Ok(Some(_)) = loopback.try_next().await {}
}

/// Which part of the view a notification makes outdated.
fn concerns(message: &NetlinkMessage<RouteNetlinkMessage>) -> Dirty {
    use RouteNetlinkMessage as Message;
    let NetlinkPayload::InnerMessage(message) = &message.payload else {
        // Notifications were lost.
        return Dirty::ALL;
    };
    match message {
        Message::NewNeighbour(_) | Message::DelNeighbour(_) => Dirty::NEIGHBOURS,
        Message::NewRoute(_) | Message::DelRoute(_) => Dirty::ROUTES,
        Message::NewAddress(_) | Message::DelAddress(_) => Dirty::ADDRESSES | Dirty::ROUTES,
        _ => Dirty::ALL,
    }
}

const GROUPS: &[MulticastGroup] = &[
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Neigh,
];

/// The number of the loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;

/// Notifications come in bursts; one look serves them all.
const COALESCE: Duration = Duration::from_millis(20);

/// Settings like `ip_forward` are looked at this often: the library does not know the kernel's
/// notifications about them.
const SETTINGS_PERIOD: Duration = Duration::from_secs(1);
