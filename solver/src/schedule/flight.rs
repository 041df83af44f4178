//! Steps that are under way, so that equal ones run once however many builds of one process want them.
//!
//! A flight lives as long as somebody waits for it: the first who wants a key starts it, others join, and when the
//! last one has left, it is told to stop. Entering and leaving happen under one lock, so nobody joins a flight
//! that is being stopped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::digest::Digest;
use crate::record::{Output, Record};

/// What a flight was for: a content key, and whether records were to be looked at.
pub(super) type FlightKey = (Digest, bool);

/// What a flight brought.
#[derive(Clone)]
pub(super) struct Landed {
    /// The result.
    pub(super) output: Arc<Output>,
    /// What was written or found, if there is such a thing.
    pub(super) record: Option<Arc<Record>>,
    /// The definition key that leads to the record.
    pub(super) definition: Digest,
    /// Was it run, or found after all?
    pub(super) ran: bool,
}

type Landing = Option<Result<Landed, Failure>>;

/// All flights of a solver.
#[derive(Default)]
pub(super) struct Flights {
    under_way: Mutex<HashMap<FlightKey, Arc<Flight>>>,
}

struct Flight {
    cancel: CancellationToken,
    landing: watch::Receiver<Landing>,
    passengers: Mutex<usize>,
}

/// A place in a flight; dropping it is leaving.
pub(super) struct Ticket {
    flights: Arc<Flights>,
    key: FlightKey,
    flight: Arc<Flight>,
    left: bool,
}

/// For who started a flight: how it is told to stop, and where its end is announced.
pub(super) struct Cockpit {
    pub(super) cancel: CancellationToken,
    pub(super) landing: watch::Sender<Landing>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    /// Enters the flight of `key`. With a cockpit: there was none, and the caller has to see to it that the cockpit's
    /// sender sends or is dropped.
    pub(super) fn enter(self: &Arc<Self>, key: FlightKey) -> (Ticket, Option<Cockpit>) {
        let mut under_way = lock(&self.under_way);
        let ticket = |flight: &Arc<Flight>| {
            *lock(&flight.passengers) += 1;
            Ticket { flights: Arc::clone(self), key, flight: Arc::clone(flight), left: false }
        };
        if let Some(flight) = under_way.get(&key) {
            return (ticket(flight), None);
        }
        let (sender, landing) = watch::channel(None);
        let cancel = CancellationToken::new();
        let flight = Arc::new(Flight { cancel: cancel.clone(), landing, passengers: Mutex::new(0) });
        under_way.insert(key, Arc::clone(&flight));
        (ticket(&flight), Some(Cockpit { cancel, landing: sender }))
    }

    /// How many wait for flights.
    #[cfg(test)]
    pub(super) fn passengers(&self) -> usize {
        lock(&self.under_way).values().map(|flight| *lock(&flight.passengers)).sum()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.under_way).len()
    }
}

impl Ticket {
    /// Waits for the flight's end. After `cancel` it leaves; if nobody else is aboard, it waits until what was
    /// started has stopped.
    pub(super) async fn ride(mut self, cancel: &CancellationToken) -> Result<Landed, Failure> {
        let mut landing = self.flight.landing.clone();
        let landed = tokio::select! {
            biased;
            landed = landing.wait_for(Option::is_some) => Some(landed.map(|l| l.clone())),
            () = cancel.cancelled() => None,
        };
        let landed = match landed {
            Some(landed) => landed,
            None if self.leave() => landing.wait_for(Option::is_some).await.map(|l| l.clone()),
            None => return Err(Failure::cancelled()),
        };
        match landed {
            Ok(Some(landed)) => landed,
            // the sender is gone: the runtime is going down
            Ok(None) | Err(_) => Err(Failure::cancelled()),
        }
    }

    /// Leaves; was it the last one?
    fn leave(&mut self) -> bool {
        if std::mem::replace(&mut self.left, true) {
            return false;
        }
        let mut under_way = lock(&self.flights.under_way);
        let mut passengers = lock(&self.flight.passengers);
        *passengers -= 1;
        if *passengers > 0 {
            return false;
        }
        self.flight.cancel.cancel();
        under_way.remove(&self.key);
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave();
    }
}
