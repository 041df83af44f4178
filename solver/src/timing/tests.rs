use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

fn activity(ready: u64, begin: u64, end: u64, needs: &[usize]) -> Activity {
    Activity { ready, begin, end, needs: needs.to_vec(), slots: None }
}

fn told(path: &[Segment]) -> Vec<(usize, u64, u64, Spent)> {
    path.iter().map(|s| (s.activity, s.from, s.to, s.spent)).collect()
}

#[test]
fn the_path_goes_through_what_was_waited_for_last() {
    use Spent::{Between, Waiting, Working};
    // 0 and 1 side by side; 2 needs both, is told of it late and waits; 3 is nobody's concern
    let activities = [
        activity(0, 0, 10, &[]),
        activity(0, 5, 30, &[]),
        activity(32, 35, 50, &[0, 1]),
        activity(0, 0, 49, &[]),
    ];
    assert_eq!(
        told(&critical_path(&activities, 0)),
        [
            (1, 0, 5, Waiting),
            (1, 5, 30, Working),
            (2, 30, 32, Between),
            (2, 32, 35, Waiting),
            (2, 35, 50, Working)
        ]
    );
    let saved: Vec<u64> = (0..4).map(|index| saved_without(&activities, 0, index)).collect();
    // without 2, 3 ends last; without 1, 2 could begin when 0 is there, but 3 goes on
    assert_eq!(saved, [0, 1, 1, 0]);
    assert_eq!(saved_without(&activities[..3], 0, 1), 20);
    assert_eq!(saved_without(&activities[..3], 0, 2), 15);
}

#[test]
fn a_slot_that_was_waited_for_is_on_the_path() {
    let slot = |ready, begin, end| Activity { slots: Some(1), ..activity(ready, begin, end, &[]) };
    let mut activities = vec![slot(0, 0, 10), slot(0, 10, 30)];
    assert_eq!(
        told(&critical_path(&activities, 0)),
        [(0, 0, 10, Spent::Working), (1, 10, 30, Spent::Working)]
    );
    assert_eq!(saved_without(&activities, 0, 0), 10);
    // somebody else's end, long before this one wanted a slot, is not why it waited
    activities[1].ready = 20;
    activities[1].begin = 25;
    assert_eq!(
        told(&critical_path(&activities, 0)),
        [(1, 20, 25, Spent::Waiting), (1, 25, 30, Spent::Working)]
    );
}

#[test]
fn an_end_that_is_told_late_is_still_why_the_next_one_waited() {
    let slot = |ready, begin, end| Activity { slots: Some(1), ..activity(ready, begin, end, &[]) };
    let activities = [slot(0, 0, 5), slot(0, 0, 11), slot(0, 10, 30), slot(12, 12, 12)];
    let path = |slack| critical_path(&activities, slack).iter().map(|s| s.activity).collect::<Vec<_>>();
    assert_eq!(path(0), [0, 2, 2], "it would have waited for nobody from 5 to 10");
    assert_eq!(path(2), [1, 2]);
}

#[test]
fn what_ends_inside_another_takes_the_path_until_then() {
    // an export that begins while a push goes on, and waits for it
    let activities = [activity(0, 0, 10, &[]), activity(5, 5, 40, &[0]), activity(20, 20, 50, &[0, 1])];
    assert_eq!(
        told(&critical_path(&activities, 0)),
        [(0, 0, 10, Spent::Working), (1, 10, 40, Spent::Working), (2, 40, 50, Spent::Working)]
    );
    assert_eq!(saved_without(&activities, 0, 1), 30);
}

#[test]
fn nothing_and_nonsense_end() {
    assert_eq!(critical_path(&[], 0), []);
    assert_eq!(saved_without(&[], 0, 0), 0);
    // each needs the other, at one moment
    let slot = |needs: &[usize]| Activity { slots: Some(0), ..activity(5, 5, 5, needs) };
    critical_path(&[slot(&[1]), slot(&[0]), slot(&[2, 77])], 1);
    saved_without(&[slot(&[1]), slot(&[0])], 1, 0);
}

/// Runs a graph on so many slots, without a pause.
fn run(work: &[(u64, Vec<usize>)], slots: usize) -> Vec<Activity> {
    let mut done: Vec<Activity> = vec![Activity::default(); work.len()];
    let mut ended = vec![false; work.len()];
    let mut started = vec![false; work.len()];
    let mut running: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut now = 0;
    loop {
        for (index, (took, needs)) in work.iter().enumerate() {
            if !started[index] && needs.iter().all(|need| ended[*need]) && running.len() < slots {
                started[index] = true;
                let ready = needs.iter().map(|need| done[*need].end).max().unwrap_or(0);
                let (needs, slots) = (needs.clone(), Some(0));
                done[index] = Activity { ready, begin: now, end: now + took, needs, slots };
                running.push(Reverse((now + took, index)));
            }
        }
        let Some(Reverse((end, index))) = running.pop() else { return done };
        now = end;
        ended[index] = true;
    }
}

fn graphs() -> impl Strategy<Value = (Vec<(u64, Vec<usize>)>, usize)> {
    let step = (1_u64..50, prop::collection::vec(any::<prop::sample::Index>(), 0..4));
    (prop::collection::vec(step, 1..60), 1_usize..5).prop_map(|(steps, slots)| {
        let work = steps.into_iter().enumerate().map(|(number, (took, needs))| {
            let mut needs: Vec<usize> =
                needs.iter().filter(|_| number > 0).map(|need| need.index(number.max(1))).collect();
            needs.sort_unstable();
            needs.dedup();
            (took, needs)
        });
        (work.collect(), slots)
    })
}

fn check_shape(activities: &[Activity], path: &[Segment]) {
    let end = activities.iter().map(|a| a.end).max().unwrap_or(0);
    assert!(path.last().is_none_or(|last| last.to == end));
    let total: u64 = path.iter().map(|segment| segment.to - segment.from).sum();
    assert!(total <= end);
    for pair in path.windows(2) {
        assert_eq!(pair[0].to, pair[1].from, "{path:?}");
    }
}

proptest! {
    /// Where somebody works at every moment, the path explains all of the time by work, and each of its links is a need or a
    /// slot that was given back.
    #[test]
    fn the_path_of_a_real_schedule_is_real((work, slots) in graphs()) {
        let activities = run(&work, slots);
        let path = critical_path(&activities, 0);
        check_shape(&activities, &path);
        prop_assert_eq!(path.first().map(|first| first.from), Some(0));
        for segment in &path {
            prop_assert_eq!(segment.spent, Spent::Working);
        }
        for pair in path.windows(2) {
            let (before, after) = (pair[0].activity, &activities[pair[1].activity]);
            prop_assert!(activities[before].end <= after.begin);
            prop_assert!(
                after.needs.contains(&before) || (after.begin > after.ready && activities[before].slots == after.slots)
            );
        }
    }

    /// Only what is on the path saves time, never more than it took; and on one slot, all that it took.
    #[test]
    fn savings_are_bounded((work, slots) in graphs()) {
        let activities = run(&work, slots);
        let path = critical_path(&activities, 0);
        for (index, activity) in activities.iter().enumerate() {
            let saved = saved_without(&activities, 0, index);
            prop_assert!(saved <= activity.end - activity.begin);
            if !path.iter().any(|segment| segment.activity == index) {
                prop_assert_eq!(saved, 0, "{}", index);
            }
            if slots == 1 {
                prop_assert_eq!(saved, activity.end - activity.begin);
            }
        }
    }

    /// Times that no clock would give are no reason to hang or to panic.
    #[test]
    fn any_times_have_a_path(
        times in prop::collection::vec((0_u64..20, 0_u64..20, 0_u64..20, prop::collection::vec(0_usize..12, 0..4), prop::option::of(0_u8..2)), 0..12),
        slack in 0_u64..9,
    ) {
        let activities: Vec<Activity> = times
            .into_iter()
            .map(|(ready, begin, end, needs, slots)| Activity { ready, begin, end, needs, slots })
            .collect();
        check_shape(&activities, &critical_path(&activities, slack));
        for index in 0..activities.len() {
            saved_without(&activities, slack, index);
        }
    }
}
