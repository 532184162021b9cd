//! All words of the pages, in each language. One that lacks a text does not compile.

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    English,
    Russian,
}

/// The forms of a word that stands after a number: one, some, many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forms(pub(crate) [&'static str; 3]);

macro_rules! words {
    (texts { $($name:ident: $english:literal, $russian:literal;)* }
     forms { $($form:ident: $one:literal $other:literal, $ru_one:literal $some:literal $many:literal;)* }
     lists { $($list:ident: $en_list:expr, $ru_list:expr;)* }) => {
        /// The words of one language.
        #[derive(Debug)]
        pub(crate) struct Words {
            pub(crate) language: Language,
            $(pub(crate) $name: &'static str,)*
            $(pub(crate) $form: Forms,)*
            $(pub(crate) $list: &'static [&'static str],)*
        }

        static ENGLISH: Words = Words {
            language: Language::English,
            $($name: $english,)*
            $($form: Forms([$one, $other, $other]),)*
            $($list: &$en_list,)*
        };

        static RUSSIAN: Words = Words {
            language: Language::Russian,
            $($name: $russian,)*
            $($form: Forms([$ru_one, $some, $many]),)*
            $($list: &$ru_list,)*
        };
    };
}

words! {
    texts {
    code: "en", "ru";
    product: "Backups", "Резервные копии";
    skip: "Skip to content", "К содержанию";
    main_menu: "Main menu", "Главное меню";
    overview: "Overview", "Обзор";
    history: "History", "История";
    drills: "Drills", "Учения";
    storage: "Storage", "Хранилище";
    restore: "Restore", "Восстановление";
    sandboxes: "Sandboxes", "Песочницы";
    sign_in: "Sign in", "Войти";
    sign_out: "Sign out", "Выйти";
    signed_in_as: "Signed in as", "Вы вошли как";
    token: "Access token", "Токен доступа";
    token_hint: "The text that whoever looks after the backups gave you. It begins with backup_token_.",
        "Текст, который вам дал администратор резервных копий. Он начинается с backup_token_.";
    wrong_token: "This token is not known here. Check that all of it was copied.",
        "Такой токен здесь неизвестен. Проверьте, что он скопирован целиком.";
    too_many: "Too many wrong tokens. Wait a minute, then try again.",
        "Слишком много неверных токенов. Подождите минуту и попробуйте снова.";
    foreign_form: "The form was not sent from a page of this server, or the page was open too long. Nothing was done. Open the page again and repeat.",
        "Форма отправлена не со страницы этого сервера, или страница была открыта слишком долго. Ничего не сделано. Откройте страницу снова и повторите.";
    refused: "That was refused", "Отказано";
    not_found: "There is no such page", "Такой страницы нет";
    not_found_text: "It may be gone, or it is not for you to see.",
        "Возможно, её больше нет, или она вам не видна.";
    forbidden: "You may not do that", "У вас нет на это прав";
    forbidden_text: "Ask whoever looks after the backups for another role.",
        "Попросите администратора резервных копий дать вам другую роль.";
    not_ready: "Reading the backups", "Читаем копии";
    not_ready_text: "The server has just started and is still reading what is stored. This page opens by itself in a few seconds.",
        "Сервер только что запущен и ещё читает хранилища. Страница откроется сама через несколько секунд.";
    back_to_overview: "Back to the overview", "Вернуться к обзору";
    as_of: "As read", "Данные прочитаны";
    incomplete: "Not everything could be read", "Прочитать удалось не всё";
    incomplete_text: "What is shown of these places may be out of date:",
        "То, что показано об этих хранилищах, может быть устаревшим:";
    sources: "Sources", "Источники";
    source: "Source", "Источник";
    backup: "Backup", "Копия";
    backups: "Backups", "Копии";
    latest_backup: "Latest backup", "Последняя копия";
    last_proved: "Last proved", "Последняя проверка";
    next_run: "Next run", "Следующий запуск";
    no_schedule: "no schedule", "без расписания";
    never: "never", "никогда";
    none_yet: "none yet", "пока нет";
    size: "Size", "Размер";
    stored_size: "Stored", "В хранилище";
    raw_size: "Uncompressed", "Без сжатия";
    ratio: "Compression", "Сжатие";
    places: "Places", "Хранилища";
    place: "Place", "Хранилище";
    database: "Database", "База данных";
    trend: "Size of the last backups", "Размер последних копий";
    not_configured: "No longer in the configuration; only its backups are left.",
        "Больше не в конфигурации; остались только копии.";
    no_sources: "Nothing is backed up yet", "Пока ничего не копируется";
    no_sources_text: "Name what is to be backed up in the configuration file, then restart the server:",
        "Укажите в файле конфигурации, что копировать, и перезапустите сервер:";
    no_sources_seen: "You may see no source. Ask whoever looks after the backups which ones your token is for.",
        "Вам не виден ни один источник. Спросите администратора, для каких источников ваш токен.";
    no_backups: "No backups yet", "Копий пока нет";
    no_backups_text: "The first one is taken at the next run of the schedule, or now by:",
        "Первая будет сделана по расписанию, или сейчас командой:";
    no_backups_unscheduled: "There is no schedule for it. The first one is taken by:",
        "Расписания у него нет. Первую сделает команда:";
    findings: "What needs attention", "Требует внимания";
    no_findings: "Nothing is wrong.", "Замечаний нет.";
    calendar: "Calendar", "Календарь";
    calendar_legend: "D daily, W weekly, M monthly, Y yearly, ● kept for another reason, ★ pinned, ✗ failed, ◐ incomplete",
        "Д — день, Н — неделя, М — месяц, Г — год, ● — хранится по другой причине, ★ — закреплена, ✗ — ошибка, ◐ — частично";
    tier_letters: "D W M Y", "Д Н М Г";
    size_over_time: "Size of backups", "Размер копий";
    duration_over_time: "Time that backups took", "Длительность копирования";
    as_table: "As a table", "В виде таблицы";
    too_few: "A chart needs at least two backups.", "Для графика нужно не меньше двух копий.";
    started: "Started", "Начало";
    taken: "Taken", "Сделана";
    took: "Took", "Длительность";
    kept_as: "Kept as", "Хранится как";
    kept_until: "Kept until", "Хранится до";
    kept_pinned: "while pinned", "пока закреплена";
    kept_by_rule: "while a rule keeps it", "пока её хранит правило";
    kept_by_none: "no rule keeps it", "ни одно правило её не хранит";
    kept_unruled: "no rule removes it", "ни одно правило её не удаляет";
    proof: "Proof", "Проверка";
    not_proved: "not proved", "не проверена";
    pinned: "pinned", "закреплена";
    partial_content: "Leaves something out on purpose", "Содержит не всё — так задано";
    older: "Older", "Более старые";
    newest: "Newest", "Самые новые";
    facts: "What is in it", "Что внутри";
    tables: "Tables", "Таблицы";
    rows: "Rows", "Строки";
    indexes: "Indexes", "Индексы";
    triggers: "Triggers", "Триггеры";
    sequences: "Sequences", "Последовательности";
    encryption: "Encryption", "Шифрование";
    encrypted: "encrypted", "зашифрована";
    not_encrypted: "not encrypted", "не зашифрована";
    server_version: "Server version", "Версия сервера";
    proof_history: "Proof history", "История проверок";
    no_proof: "Nobody has proved yet that this backup can be restored.",
        "Пока никто не проверил, что эту копию можно восстановить.";
    actions: "What you can do", "Что можно сделать";
    restore_button: "Restore into a sandbox", "Восстановить в песочницу";
    drill_button: "Run a drill", "Провести учение";
    verify_button: "Verify", "Проверить";
    backup_button: "Back up now", "Сделать копию сейчас";
    operation: "Operation", "Операция";
    result: "Result", "Итог";
    who: "Who", "Кто";
    filter: "Filter", "Фильтр";
    show: "Show", "Показать";
    all: "all", "все";
    days: "Days", "Дней";
    no_runs: "Nothing was done in that time.", "За это время ничего не делалось.";
    no_drills: "No drill was run yet. A drill restores a backup on a server of its own and compares every row; it is what shows that a backup can be relied on.",
        "Учений ещё не было. Учение восстанавливает копию на отдельном сервере и сравнивает каждую строку; оно и показывает, что на копию можно положиться.";
    rto: "Time to restore", "Время восстановления";
    rto_over_time: "Time to restore, by drill", "Время восстановления по учениям";
    assertions: "Assertions", "Проверки данных";
    level: "Level", "Уровень";
    compared: "Comparison", "Сравнение";
    equal_tables: "tables equal", "совпало таблиц";
    equal: "equal", "совпало";
    different: "different", "различается";
    not_compared: "not compared", "не сравнивалось";
    storage_now: "Now", "Сейчас";
    free: "Free", "Свободно";
    growth: "Growth per day", "Рост за день";
    forecast: "Forecast", "Прогноз";
    in_30_days: "in 30 days", "через 30 дней";
    full_in: "full in about", "заполнится примерно через";
    not_enough: "not enough data", "данных недостаточно";
    storage_over_time: "Stored bytes over time", "Объём хранения по времени";
    storage_note: "Counted from the backups that are there and the records of those that were deleted. The forecast goes on with the average growth of the last 30 days.",
        "Посчитано по имеющимся копиям и записям об удалённых. Прогноз продолжает средний рост за последние 30 дней.";
    date: "Date", "Дата";
    progress: "Progress", "Ход работы";
    phase: "Step", "Этап";
    refresh: "Refresh", "Обновить";
    cancel: "Cancel", "Отменить";
    queued_note: "Waiting for its turn.", "Ждёт своей очереди.";
    connect: "How to connect", "Как подключиться";
    host: "Host", "Сервер";
    port: "Port", "Порт";
    user: "User", "Пользователь";
    password: "Password", "Пароль";
    password_once: "The password is shown this once. Copy it now.",
        "Пароль показывается только один раз. Скопируйте его сейчас.";
    password_gone: "The password was shown once already, to whoever asked for the sandbox.",
        "Пароль уже был показан один раз тому, кто просил песочницу.";
    password_once_button: "The password is shown once, and only to you. Have a place ready to paste it.",
        "Пароль будет показан один раз и только вам. Приготовьте, куда его вставить.";
    show_access: "Show how to connect", "Показать, как подключиться";
    under_way: "Under way", "Выполняется сейчас";
    no_database: "This backup is of no database, so nothing can be made of it to look into.",
        "Это копия не базы данных, поэтому открыть её для просмотра нельзя.";
    several_sources: "Several sources have a backup of that name. Go there from the page of the source.",
        "Резервная копия с таким именем есть у нескольких источников. Откройте её со страницы источника.";
    wrong_names: "Names of schemas and tables may not be that long or that many.",
        "Имена схем и таблиц слишком длинные, или их слишком много.";
    failure_refused: "It is not within the limits or the rules of the server.",
        "Это вне пределов или правил сервера.";
    failure_not_found: "The backup, or what was selected of it, is not there.",
        "Копии, или того, что из неё выбрано, нет.";
    failure_conflict: "Something else is under way. Try again later.",
        "Выполняется что-то другое. Попробуйте позже.";
    failure_corrupt: "The backup, or what was restored of it, is not as it should be.",
        "Копия, или то, что из неё восстановлено, не такая, как должна быть.";
    failure_timeout: "It took too long.", "Это заняло слишком много времени.";
    failure_other: "It failed. An operator can see why.", "Не получилось. Оператор может узнать, почему.";
    until: "Until", "До";
    drop: "Drop", "Удалить";
    owner: "Whose", "Чья";
    no_sandboxes: "You have no sandbox.", "У вас нет песочниц.";
    no_sandbox_server: "No server for sandboxes is configured: [sandbox] server names one.",
        "Сервер для песочниц не настроен: его называет [sandbox] server.";
    unreachable: "What is needed for it does not answer now. The log of the server knows more.",
        "То, что для этого нужно, сейчас не отвечает. Подробности — в журнале сервера.";
    too_many_orders: "Too much was asked for. Wait a minute, then try again.",
        "Слишком много запросов. Подождите минуту и попробуйте снова.";
    pin_button: "Pin", "Закрепить";
    unpin_button: "Unpin", "Снять закрепление";
    restore_intro: "A sandbox is a database of your own, made from a backup, to look into. Production is never touched, and it is dropped by itself when its time is over.",
        "Песочница — ваша отдельная база, сделанная из копии, чтобы в неё заглянуть. Рабочая база не затрагивается, а песочница удаляется сама, когда истечёт её срок.";
    choose_source: "Choose a source", "Выберите источник";
    choose_backup: "Choose a backup", "Выберите копию";
    next_step: "Next", "Далее";
    start_restore: "Start the restore", "Начать восстановление";
    only_schemas: "Only these schemas", "Только эти схемы";
    only_tables: "Only these tables", "Только эти таблицы";
    comma_hint: "Names with commas between them; empty means everything.",
        "Имена через запятую; пусто — всё.";
    part_only: "Only a part of it", "Только часть";
    busy: "That is running already.", "Это уже выполняется.";
    one_sandbox: "Another sandbox of yours is being made. Wait until it is there, then ask again.",
        "Для вас уже создаётся другая песочница. Дождитесь её и попросите снова.";
    look_at_it: "Look how it goes", "Посмотреть, как идёт дело";
    queue_full: "Too much is waiting already. Try again later.",
        "В очереди слишком много. Попробуйте позже.";
    stopping: "The server is about to stop. Try again in a minute.",
        "Сервер останавливается. Попробуйте через минуту.";
    run: "Run", "Запуск";
    by: "Asked for by", "Кто попросил";
    done_of: "of", "из";
    ago_before: "", "";
    ago_after: " ago", " назад";
    ahead: "in ", "через ";
    just_now: "just now", "только что";
    ok: "good", "в порядке";
    warning: "warning", "внимание";
    critical: "critical", "авария";
    unknown: "unknown", "неизвестно";
    success: "success", "успешно";
    warnings: "with warnings", "с замечаниями";
    partial: "incomplete", "частично";
    failed: "failed", "ошибка";
    cancelled: "cancelled", "отменено";
    interrupted: "interrupted", "прервано";
    queued: "waiting", "в очереди";
    running: "running", "выполняется";
    complete: "complete", "полностью";
    op_backup: "backup", "копирование";
    op_adopt: "adoption", "приём чужой копии";
    op_restore: "restore", "восстановление";
    op_verify: "verification", "проверка";
    op_drill: "drill", "учение";
    op_copy: "copy", "перенос";
    op_prune: "pruning", "очистка";
    op_undo: "undo", "отмена замены";
    op_pin: "pin", "закрепление";
    op_unpin: "unpin", "снятие закрепления";
    op_rekey: "rekey", "смена ключей";
    tier_daily: "daily", "дневная";
    tier_weekly: "weekly", "недельная";
    tier_monthly: "monthly", "месячная";
    tier_yearly: "yearly", "годовая";
    level_stored: "objects are there", "объекты на месте";
    level_hashed: "every byte read", "прочитан каждый байт";
    level_decoded: "content read", "содержимое прочитано";
    level_compared: "restored and compared", "восстановлена и сверена";
    level_restored: "restored, not compared", "восстановлена, не сверена";
    level_checked: "compared and checked", "сверена и проверена";
    drilled: "drill passed", "учение пройдено";
    drill_failed: "drill failed", "учение не пройдено";
    found_damaged: "A backup is damaged", "Копия повреждена";
    found_incomplete: "A backup has lost objects", "В копии не хватает объектов";
    found_future: "A backup is dated in the future", "Дата копии в будущем";
    found_stale: "There is no recent backup", "Нет свежей копии";
    found_shrunk: "A backup is much smaller than before", "Копия намного меньше прежних";
    found_slow: "A backup took unusually long", "Копирование шло необычно долго";
    found_failed: "The last run failed", "Последний запуск завершился ошибкой";
    found_unverified: "Not verified lately", "Давно не проверялась";
    found_undrilled: "No drill lately", "Давно не было учений";
    found_space: "Room is running out", "Кончается место";
    found_unreachable: "A place cannot be reached", "Хранилище недоступно";
    found_no_backup: "There is no backup", "Нет ни одной копии";
    found_fewer_rows: "A backup has far fewer rows than before", "В копии намного меньше строк, чем раньше";
    found_fewer_tables: "A backup has fewer tables than before", "В копии меньше таблиц, чем раньше";
    found_missing_copy: "A copy is missing at a place", "В хранилище не хватает копии";
    found_damaged_record: "A record of a run cannot be read", "Запись о запуске не читается";
    found_other: "Something is not as it should be", "Что-то не так";
    role_viewer: "viewer", "наблюдатель";
    role_restorer: "restorer", "может восстанавливать";
    role_operator: "operator", "оператор";
    role_admin: "administrator", "администратор";
    bot_help: "I restore a backup into a database of your own, so that you can look into it. The database that is in use is never touched.\n\n/start — choose a source and a backup\n/status — what is under way, and how the sources are\n/cancel — stop what you asked for\n/help — this text",
        "Я восстанавливаю копию в вашу отдельную базу, чтобы в неё заглянуть. Рабочая база не затрагивается.\n\n/start — выбрать источник и копию\n/status — что выполняется и как дела у источников\n/cancel — остановить то, что вы попросили\n/help — эта справка";
    bot_unclear: "I do not understand that. /help says what I can do.",
        "Не понимаю. Что я умею, скажет /help.";
    bot_not_ready: "The server has just started and is still reading the backups. Send /start again in a minute.",
        "Сервер только что запущен и ещё читает копии. Отправьте /start ещё раз через минуту.";
    bot_nothing_there: "There is no backup that you may see.", "Нет ни одной копии, которую вам можно видеть.";
    bot_confirm: "Restore this backup?", "Восстановить эту копию?";
    bot_lasts: "It is dropped", "Она удаляется";
    bot_yes: "YES", "ДА";
    bot_damaged: "damaged", "повреждена";
    bot_expired: "This button is used or expired. Send /start.",
        "Кнопка уже использована или устарела. Отправьте /start.";
    bot_dismissed: "Nothing was done.", "Ничего не сделано.";
    bot_ordered: "Asked for.", "Заказано.";
    bot_ready: "The sandbox is ready.", "Песочница готова.";
    bot_password_follows: "The password is in the next message. I take it back in five minutes, so copy it now.",
        "Пароль — в следующем сообщении. Через пять минут я его удалю, поэтому скопируйте его сейчас.";
    bot_password_lost: "The password could not be told, and is told only once. Ask for a new sandbox with /start.",
        "Пароль не удалось передать, а передаётся он только один раз. Попросите новую песочницу: /start.";
    bot_interrupted: "The server stopped before that was over. Ask again when it is back.",
        "Сервер остановился раньше, чем это закончилось. Попросите снова, когда он вернётся.";
    bot_idle: "Nothing that you asked for is under way.", "Из того, что вы просили, ничего не выполняется.";
    bot_stopping: "It is being stopped.", "Останавливаю.";
    bot_cmd_start: "choose a backup and restore it", "выбрать копию и восстановить её";
    bot_cmd_status: "what is under way, and how the sources are", "что выполняется и как дела у источников";
    bot_cmd_cancel: "stop what I asked for", "остановить то, что я попросил";
    bot_cmd_help: "what this bot can do", "что умеет этот бот";
    decimal: ".", ",";
    group: ",", "\u{202f}";
    milliseconds: "ms", "мс";
    seconds: "s", "с";
    minutes: "min", "мин";
    hours: "h", "ч";
    }

    forms {
    n_sources: "source" "sources", "источник" "источника" "источников";
    n_backups: "backup" "backups", "копия" "копии" "копий";
    n_tables: "table" "tables", "таблица" "таблицы" "таблиц";
    n_rows: "row" "rows", "строка" "строки" "строк";
    n_minutes: "minute" "minutes", "минуту" "минуты" "минут";
    n_hours: "hour" "hours", "час" "часа" "часов";
    n_days: "day" "days", "день" "дня" "дней";
    }

    lists {
    months: ["January", "February", "March", "April", "May", "June", "July", "August",
        "September", "October", "November", "December"],
        ["Январь", "Февраль", "Март", "Апрель", "Май", "Июнь", "Июль", "Август", "Сентябрь",
        "Октябрь", "Ноябрь", "Декабрь"];
    months_in_dates: ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov",
        "Dec"], ["января", "февраля", "марта", "апреля", "мая", "июня", "июля", "августа",
        "сентября", "октября", "ноября", "декабря"];
    months_short: ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov",
        "Dec"], ["янв", "фев", "мар", "апр", "мая", "июн", "июл", "авг", "сен", "окт", "ноя", "дек"];
    weekdays: ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"],
        ["Пн", "Вт", "Ср", "Чт", "Пт", "Сб", "Вс"];
    units: ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
        ["Б", "КиБ", "МиБ", "ГиБ", "ТиБ", "ПиБ", "ЭиБ"];
    }
}

impl Words {
    /// Of what a browser would rather read, the first that we have; English if none.
    pub(crate) fn accepted(header: &str) -> &'static Self {
        let ranges = header.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next()?.to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q="));
            let quality: f64 = quality.map_or(Some(1.0), |said| said.parse().ok())?;
            let words = match tag.split('-').next()? {
                "en" => &ENGLISH,
                "ru" => &RUSSIAN,
                _ => return None,
            };
            (quality > 0.0).then_some((words, quality))
        });
        // Of two that are as welcome, the first.
        let best = ranges.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map_or(&ENGLISH, |(words, _)| words)
    }

    /// All of them.
    pub(crate) fn all() -> [&'static Self; 2] {
        [&ENGLISH, &RUSSIAN]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_the_language_that_it_asks_for() {
        for (said, expected) in [
            ("", "en"),
            ("ru", "ru"),
            ("ru-RU,ru;q=0.9,en-US;q=0.8,en;q=0.7", "ru"),
            ("en-US,en;q=0.9,ru;q=0.8", "en"),
            ("de-DE,de;q=0.9,ru;q=0.5", "ru"),
            ("ru;q=0, en;q=0.1", "en"),
            ("en;q=0.5, RU;q=0.6", "ru"),
            ("fr", "en"),
            ("ru;q=x", "en"),
        ] {
            assert_eq!(Words::accepted(said).code, expected, "{said}");
        }
    }
}
