//! The naive reading of a rule: it keeps all that ever happened, and works everything out from the beginning each time.

use super::random::{Happening, Subject, life, spec};
use super::*;

/// Something that happened, at a millisecond. A reset is kept only if it was granted.
type Event = (u64, Happening);

struct History<'a> {
    spec: &'a RuleSpec,
    events: &'a [Event],
}

/// A moment: the events so far, the last of which is the evaluation in question.
type Upto = usize;

impl History<'_> {
    fn max_age(&self, input: usize) -> Option<u64> {
        self.spec.inputs.values().nth(input).unwrap().max_age.map(|span| span.0.as_millis() as u64)
    }

    fn number(&self, name: &str) -> usize {
        self.spec.inputs.keys().position(|known| known == name).unwrap()
    }

    fn life(&self, upto: Upto) -> &[Event] {
        let events = &self.events[..upto];
        let begin = events.iter().rposition(|(_, event)| *event == Happening::Restart);
        &events[begin.map_or(0, |at| at + 1)..]
    }

    fn time(&self, upto: Upto) -> u64 {
        self.events[upto - 1].0
    }

    /// The reports of an input in this life: when read, and what, `None` for a bad one.
    fn reports(&self, upto: Upto, input: usize) -> Vec<(u64, Option<f64>)> {
        let of_input = self.life(upto).iter().filter_map(|(at, event)| {
            let Happening::Report { input: of, value, quality, age } = event else { return None };
            (*of == input).then(|| (at - age, (*quality > Quality::Bad).then_some(*value)))
        });
        of_input.collect()
    }

    fn value(&self, upto: Upto, input: usize) -> Option<f64> {
        let reports = self.reports(upto, input);
        let read_at = reports.iter().map(|(at, _)| *at).max()?;
        let age = self.time(upto) - read_at;
        reports.last()?.1.filter(|_| self.max_age(input).is_none_or(|max| age <= max))
    }

    /// The readings since the last bad one or gap. One that is older than the one before was made with it.
    fn run(&self, upto: Upto, input: usize) -> Vec<(u64, f64)> {
        let mut run: Vec<(u64, f64)> = Vec::new();
        for (at, value) in self.reports(upto, input) {
            let last = run.last().map(|(last, _)| *last);
            let at = last.map_or(at, |last| at.max(last));
            let is_gap = last.is_some_and(|last| at - last > self.max_age(input).unwrap());
            if is_gap || value.is_none() {
                run.clear();
            }
            run.extend(value.map(|value| (at, value)));
        }
        run
    }

    fn through(&self, upto: Upto, input: usize, over: Over) -> Option<f64> {
        let (now, run) = (self.time(upto) * 1000, self.run(upto, input));
        let (newest_at, newest) = *run.last()?;
        if self.time(upto) - newest_at > self.max_age(input).unwrap() {
            return None;
        }
        let begin = now - over.span().0.as_micros() as u64;
        let slice = |at: u64| at * 1000 / (over.span().0 / SLICES).as_micros() as u64;
        // What is known of a reading's time is that of the last one in its slice.
        let known =
            |at: u64| run.iter().map(|(at, _)| *at).filter(|a| slice(*a) == slice(at)).max().unwrap() * 1000;
        let first = run.iter().rfind(|(at, _)| known(*at) <= begin)?.1;
        let within =
            || run.iter().filter(|(at, _)| known(*at) > begin).map(|(_, value)| *value).chain([first]);
        Some(match over {
            Over::Change(_) => newest - first,
            Over::Spread(_) => within().fold(f64::MIN, f64::max) - within().fold(f64::MAX, f64::min),
        })
    }

    fn compared(&self, upto: Upto, predicate: &Predicate) -> Option<(f64, f64)> {
        let input = self.number(&predicate.input);
        let present = self.value(upto, input)?;
        let left = predicate.over().map_or(Some(present), |over| self.through(upto, input, over))?;
        let right = match &predicate.than {
            Some(than) => self.value(upto, self.number(than))?,
            None => predicate.value.as_ref()?.as_f64()?,
        };
        Some((left, right + predicate.margin))
    }

    /// The evaluations so far, in all lives.
    fn evaluations(&self, upto: Upto) -> Vec<Upto> {
        let is_one = |at: &usize| matches!(self.events[*at].1, Happening::Evaluate { .. });
        (0..upto).filter(is_one).map(|at| at + 1).collect()
    }

    /// How the comparison came out at each evaluation, with its hysteresis.
    fn comparisons(&self, upto: Upto, predicate: &Predicate) -> Vec<(Upto, Option<bool>)> {
        let mut held = false;
        let mut came_out = |upto: Upto| {
            let (left, right) = self.compared(upto, predicate)?;
            let slack = if held { predicate.hysteresis } else { 0.0 };
            held = match predicate.op {
                Op::Above => left > right - slack,
                Op::AtLeast => left >= right - slack,
                Op::Below => left < right + slack,
                Op::AtMost => left <= right + slack,
                Op::Equal => left == right,
            };
            Some(held)
        };
        self.evaluations(upto).into_iter().map(|upto| (upto, came_out(upto))).collect()
    }

    fn truth(&self, upto: Upto, predicate: &Predicate, lasting: bool) -> Option<bool> {
        let comparisons = self.comparisons(upto, predicate);
        let life = upto - self.life(upto).len();
        let (last, came_out) = *comparisons.last().unwrap();
        assert_eq!(last, upto);
        if !came_out? {
            return Some(false);
        }
        let unbroken = comparisons.iter().rev().take_while(|(at, held)| *at > life && *held == Some(true));
        let since = unbroken.last().unwrap().0;
        let needed = predicate.lasting.filter(|_| lasting).map_or(0, |span| span.0.as_millis() as u64);
        Some(self.time(upto) - self.time(since) >= needed)
    }

    fn condition(&self, upto: Upto, when: &When, lasting: bool) -> Option<bool> {
        let parts: Vec<_> = when.parts().iter().map(|part| self.condition(upto, part, lasting)).collect();
        let count = |truth| parts.iter().filter(|part| **part == truth).count();
        let (yes, unknown, all) = (count(Some(true)), count(None), parts.len());
        let vote =
            |needed| if yes >= needed { Some(true) } else { (yes + unknown < needed).then_some(false) };
        match when {
            When::Is(predicate) => self.truth(upto, predicate, lasting),
            When::Not(_) => parts[0].map(|part| !part),
            When::All(_) => vote(all),
            When::Any(_) => vote(1),
            When::AtLeast(group) => vote(group.at_least),
        }
    }

    fn case(&self, upto: Upto, number: usize, lasting: bool) -> Option<bool> {
        match &self.spec.cases[number].when {
            Some(when) => self.condition(upto, when, lasting),
            None => Some(true),
        }
    }

    /// How long inputs have had the chance to be heard.
    fn waited(&self, upto: Upto) -> u64 {
        let life = self.life(upto);
        let evaluations = || life.iter().filter(|(_, event)| matches!(event, Happening::Evaluate { .. }));
        let anew = evaluations().rfind(|(_, event)| *event == Happening::Evaluate { anew: true });
        let began = anew.or_else(|| evaluations().next());
        began.map_or(0, |(at, _)| self.time(upto) - at)
    }

    fn may_come(&self, upto: Upto, input: usize) -> bool {
        self.reports(upto, input).is_empty() && self.waited(upto) < self.max_age(input).unwrap_or(10_000)
    }

    /// Whether a case is unknown only for what was never heard of, or never could have been covered.
    fn is_early(&self, upto: Upto, number: usize) -> bool {
        let predicates = self.spec.cases[number].predicates();
        let mut unknown = predicates.into_iter().filter(|p| self.truth(upto, p, true).is_none());
        unknown.all(|predicate| {
            let input = self.number(&predicate.input);
            let inputs = [Some(input), predicate.than.as_ref().map(|than| self.number(than))];
            let mut silent = inputs.into_iter().flatten().filter(|input| self.value(upto, *input).is_none());
            let fills = predicate.over().is_none_or(|over| {
                let time = over.span().0.as_millis() as u64 + self.max_age(input).unwrap();
                self.value(upto, input).is_some() && self.through(upto, input, over).is_some()
                    || self.waited(upto) < time
            });
            silent.all(|input| self.may_come(upto, input)) && fills
        })
    }

    fn applies(&self, upto: Upto, number: usize) -> bool {
        let counts = || self.spec.on_unknown == OnUnknown::Trip && !self.is_early(upto, number);
        self.case(upto, number, true).unwrap_or_else(counts)
    }

    /// What is latched: number, when, and whether it was unknown then; the first first.
    fn trips(&self, upto: Upto) -> Vec<(usize, u64, bool)> {
        let reset = self.events[..upto].iter().rposition(|(_, event)| *event == Happening::Reset);
        let since = self.evaluations(upto).into_iter().filter(|at| reset.is_none_or(|reset| *at > reset));
        let mut trips: Vec<(usize, u64, bool)> = Vec::new();
        for at in since {
            for (number, _) in self.spec.cases.iter().enumerate().filter(|(_, case)| case.latch) {
                let is_new = trips.iter().all(|(known, ..)| *known != number);
                if is_new && self.applies(at, number) {
                    trips.push((number, self.time(at), self.case(at, number, true).is_none()));
                }
            }
        }
        trips
    }

    fn evaluate(&self, upto: Upto) -> (By, Decision) {
        let trips = self.trips(upto);
        let latched = |number: usize| trips.iter().any(|(known, ..)| *known == number);
        let applies = |number: &usize| latched(*number) || self.applies(upto, *number);
        let all = 0..self.spec.cases.len();
        let first = all.clone().find(|n| applies(n) || self.case(upto, *n, true).is_none());
        let Some(first) = first else { return (By::Nothing, Decision::Relinquish) };
        match all.skip(first).find(applies) {
            Some(number) if number == first || latched(number) => {
                let trip = trips.iter().find(|(known, ..)| *known == number);
                let unknown = trip.map_or(self.case(upto, number, true).is_none(), |(.., unknown)| *unknown);
                self.then(upto, number, unknown)
            }
            _ => {
                let settles = self.spec.on_unknown != OnUnknown::Trip && self.settles(upto);
                let early = self.is_early(upto, first) || settles;
                self.unknown(first, early, format!("case {} cannot be told", first + 1))
            }
        }
    }

    fn settles(&self, upto: Upto) -> bool {
        (0..self.spec.inputs.len()).any(|input| self.may_come(upto, input))
    }

    fn then(&self, upto: Upto, number: usize, unknown: bool) -> (By, Decision) {
        let title = format!("case {}", number + 1);
        let cause = if unknown { format!("{title} cannot be told") } else { title.clone() };
        let decision = match &self.spec.cases[number].then {
            Then::Hold => Decision::Hold,
            Then::Relinquish => Decision::Relinquish,
            Then::Value(Expression::Constant(value)) => Decision::Set { value: value.clone(), cause },
            Then::Value(Expression::Linear(_)) => match (self.value(upto, 1), self.value(upto, 2)) {
                (Some(b), Some(c)) => {
                    Decision::Set { value: Value::Float((1.25 * (b - c) + 0.1).max(-2.0)), cause }
                }
                _ => {
                    return self.unknown(number, self.settles(upto), format!("{title}: an input is unknown"));
                }
            },
        };
        (By::Case(number), decision)
    }

    fn unknown(&self, number: usize, early: bool, cause: String) -> (By, Decision) {
        let decision = match &self.spec.on_unknown {
            _ if early => return (By::Waiting(number), Decision::Hold),
            OnUnknown::Hold => Decision::Hold,
            OnUnknown::FailSafe | OnUnknown::Trip => Decision::FailSafe,
            OnUnknown::Value(value) => Decision::Set { value: value.clone(), cause },
        };
        (By::Unknown(number), decision)
    }

    /// Whether a reset that happens now, after all events, is granted.
    fn grants(&self, at: u64) -> bool {
        let trips = self.trips(self.events.len());
        let mut events = self.events.to_vec();
        events.push((at, Happening::Evaluate { anew: false }));
        let after = History { spec: self.spec, events: &events };
        let is_false = |number, lasting| after.case(events.len(), number, lasting) == Some(false);
        !trips.is_empty()
            && trips.iter().all(|(number, ..)| is_false(*number, true) && is_false(*number, false))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_rule_agrees_with_a_naive_reading_of_its_history(spec in spec(), life in life(1..50)) {
        let (mut subject, mut events) = (Subject::new(&spec), Vec::new());
        for (after, happening) in life {
            subject.pass(after);
            let at = subject.now.mono.0 / 1000;
            match &happening {
                Happening::Report { input, value, quality, age } => {
                    subject.report(*input, *value, *quality, *age);
                }
                Happening::Restart => subject.restart(),
                Happening::Reset => {
                    let granted = History { spec: &spec, events: &events }.grants(at);
                    prop_assert_eq!(subject.reset(), granted);
                    if !granted {
                        continue;
                    }
                }
                Happening::Evaluate { anew } => {
                    events.push((at, happening.clone()));
                    let Evaluation { decision, by } = subject.evaluate(*anew);
                    let history = History { spec: &spec, events: &events };
                    prop_assert_eq!((by, decision), history.evaluate(events.len()), "at {}", at);
                    let wall = |at: u64| subject.now.wall.0 - (subject.now.mono.0 / 1000 - at);
                    let trips = history.trips(events.len());
                    let expected: Vec<_> = trips.iter().map(|(n, at, u)| (*n as u32, wall(*at), *u)).collect();
                    let got: Vec<_> =
                        subject.state.trips().iter().map(|t| (t.number, t.at.0, t.unknown)).collect();
                    prop_assert_eq!(got, expected);
                    continue;
                }
            }
            events.push((at, happening));
        }
    }
}
