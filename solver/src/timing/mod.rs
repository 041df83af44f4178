//! Where the time of a build went: the chain of activities that decided when it ended, and what would have made it end
//! earlier.
//!
//! The times are real ones, as they were measured. From the activity that ended last, the path goes back to what this one
//! waited for last: an activity whose result it needs, or one whose slot it got. So the path explains every moment
//! from its beginning to the end, by somebody who worked, somebody who waited, or nobody ([`Spent`]).

#[cfg(test)]
mod tests;

/// Something that took time. Times are in microseconds since the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Activity {
    /// When it could have begun: all that it needs was there.
    pub ready: u64,
    /// When it began to work; until then it waited.
    pub begin: u64,
    /// When it ended.
    pub end: u64,
    /// The activities (by index) whose results it needs. One may end after it has begun: then it waited inside.
    pub needs: Vec<usize>,
    /// Activities with the same number wait for the same slots; `None`: it needs no slot.
    pub slots: Option<u8>,
}

/// A part of the critical path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Whose.
    pub activity: usize,
    /// From when.
    pub from: u64,
    /// To when; the next segment begins here.
    pub to: u64,
    /// What the time was spent on.
    pub spent: Spent,
}

/// What time was spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spent {
    /// The activity worked.
    Working,
    /// It waited, for a slot or for somebody else.
    Waiting,
    /// It was not known yet that it could begin: what lies between activities.
    Between,
}

/// How an activity hangs on an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Link {
    Need(usize),
    Slot(usize),
}

impl Link {
    fn target(self) -> usize {
        match self {
            Self::Need(index) | Self::Slot(index) => index,
        }
    }
}

/// The path that decided when the last activity ended, in the order of time. Its segments do not overlap and leave no gap
/// between them.
///
/// `slack`: an activity may be told to have ended so long after it gave its slot back.
pub fn critical_path(activities: &[Activity], slack: u64) -> Vec<Segment> {
    let Some(last) = (0..activities.len()).max_by_key(|index| (activities[*index].end, *index)) else {
        return Vec::new();
    };
    let links = links(activities, slack);
    let mut seen = vec![false; activities.len()];
    let mut path = Vec::new();
    let (mut current, mut to) = (last, activities[last].end);
    loop {
        seen[current] = true;
        let Activity { ready, begin, .. } = activities[current];
        let before = links[current].map(Link::target).filter(|before| !seen[*before]);
        // from here back it is the affair of what came before, or of nobody
        let from = match before {
            Some(before) => activities[before].end.min(to),
            None => ready.min(begin).min(to),
        };
        for (spent, since) in [(Spent::Working, begin), (Spent::Waiting, ready), (Spent::Between, 0)] {
            let since = since.max(from);
            if since < to {
                path.push(Segment { activity: current, from: since, to, spent });
                to = since;
            }
        }
        match before {
            Some(before) => current = before,
            None => break,
        }
    }
    path.reverse();
    path
}

/// How much earlier the last activity would have ended if this one had taken no time, everything else being as it was: the
/// others begin when what they waited for is there, as long after it as they did. No more than the activity took; nothing for
/// one that is not on the critical path. `slack` as for [`critical_path`].
pub fn saved_without(activities: &[Activity], slack: u64, which: usize) -> u64 {
    let links = links(activities, slack);
    let mut order: Vec<usize> = (0..activities.len()).collect();
    // what an activity hangs on ended before it, or at the same time
    order.sort_by_key(|index| (activities[*index].end, activities[*index].begin, *index));
    let mut ends: Vec<u64> = activities.iter().map(|activity| activity.end).collect();
    for index in order {
        let Activity { begin, end, .. } = activities[index];
        // what came last before it, and how much later that is now known to come
        let hangs_on = activities[index].needs.iter().copied().chain(links[index].map(Link::target));
        let (mut old, mut new) = (0, 0);
        for before in hangs_on.filter(|before| *before != index) {
            if let Some(other) = activities.get(before).filter(|other| other.end <= end) {
                old = old.max(other.end);
                new = new.max(ends[before]);
            }
        }
        let took = if index == which { end.saturating_sub(begin.max(old)) } else { 0 };
        ends[index] = end.saturating_sub(old.saturating_sub(new)).saturating_sub(took);
    }
    let latest = |ends: &mut dyn Iterator<Item = u64>| ends.max().unwrap_or(0);
    let before = latest(&mut activities.iter().map(|activity| activity.end));
    before.saturating_sub(latest(&mut ends.into_iter()))
}

/// What each activity waited for last.
fn links(activities: &[Activity], slack: u64) -> Vec<Option<Link>> {
    // by slots: who gave one back, in the order of time
    let mut given_back: std::collections::BTreeMap<u8, Vec<(u64, usize)>> = std::collections::BTreeMap::new();
    for (index, activity) in activities.iter().enumerate() {
        if let Some(slots) = activity.slots {
            given_back.entry(slots).or_default().push((activity.end, index));
        }
    }
    given_back.values_mut().for_each(|ends| ends.sort_unstable());
    let link = |(index, activity): (usize, &Activity)| {
        let needs = activity.needs.iter().copied().filter(|need| *need != index && *need < activities.len());
        let need =
            needs.map(|need| (activities[need].end, need)).filter(|(end, _)| *end <= activity.end).max();
        let since = need.map_or(activity.ready, |(end, _)| end.max(activity.ready));
        let slot = activity.slots.and_then(|slots| {
            let ends = given_back.get(&slots)?;
            let until = ends.partition_point(|(end, _)| *end <= activity.begin.saturating_add(slack));
            // one that began at the same time or later has not waited any less
            let gave = |other: &&(u64, usize)| {
                other.1 != index && (other.0 <= activity.begin || activities[other.1].begin < activity.begin)
            };
            let given = ends[..until].iter().rev().find(gave)?;
            (given.0 > since).then_some(*given)
        });
        match (slot, need) {
            (Some((_, slot)), _) => Some(Link::Slot(slot)),
            (None, Some((_, need))) => Some(Link::Need(need)),
            (None, None) => None,
        }
    };
    activities.iter().enumerate().map(link).collect()
}
