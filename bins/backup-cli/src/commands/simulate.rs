//! `simulate`: what a policy would keep over time.

use backup_app::SystemClock;
use backup_core::clock::Clock as _;
use chrono::NaiveTime;

use super::{Context, Outcome};
use crate::args::SimulateArgs;
use crate::report::SimulatedView;
use crate::{exit_code, render};

pub(super) fn run(context: &Context, arguments: &SimulateArgs) -> Outcome {
    let three = NaiveTime::from_hms_opt(3, 0, 0).unwrap_or_default();
    let start = SystemClock.now().date_naive().and_time(three).and_utc();
    let name = arguments.retention.as_deref();
    let years = context.app.simulate(name, start, arguments.years)?;
    let views = SimulatedView::all(&years);
    if context.json {
        render::json(&views);
    } else {
        print(&views);
    }
    Ok(exit_code::DONE)
}

fn print(views: &[SimulatedView]) {
    let header = [
        "after", "daily", "weekly", "monthly", "yearly", "others", "total", "oldest",
    ];
    let mut table = render::table(&header, &[1, 2, 3, 4, 5, 6]);
    // Days say enough.
    let day = |time: &str| time.chars().take(10).collect::<String>();
    for view in views {
        let counts = [
            view.daily,
            view.weekly,
            view.monthly,
            view.yearly,
            view.others,
            view.total,
        ];
        let counts = counts.iter().map(|count| render::count(*count as u64));
        let row = std::iter::once(day(&view.ends_at)).chain(counts);
        table.add_row(row.chain(std::iter::once(day(&view.oldest))));
    }
    render::print(&table);
    render::note("for one backup a day from today; one may fill several slots");
}
