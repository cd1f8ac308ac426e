-- Every question the ledger asks of its database, in SQL that SQLite and PostgreSQL both read; values come as parameters.
-- A line "-- name: X" starts a query; the comment after it says what it is for.

-- name: installation
-- The random identity made with the ledger.
SELECT value FROM meta WHERE name = 'installation';

-- name: add_installation
-- Made once, together with the tables.
INSERT INTO meta (name, value) VALUES ('installation', :value);

-- name: last_ids
-- The highest number in each table; the writer, who is alone, counts on from there.
SELECT
    (SELECT COALESCE(MAX(id), 0) FROM runs) AS runs,
    (SELECT COALESCE(MAX(id), 0) FROM objects) AS objects,
    (SELECT COALESCE(MAX(id), 0) FROM looks) AS looks,
    (SELECT COALESCE(MAX(id), 0) FROM findings) AS findings,
    (SELECT COALESCE(MAX(id), 0) FROM decisions) AS decisions;

-- name: begin_run
-- One command that writes facts.
INSERT INTO runs (id, command, arguments, at) VALUES (:id, :command, :arguments, :at);

-- name: end_run
-- How it ended; a run without this line was cut off.
INSERT INTO run_ends (run, outcome, counts, at) VALUES (:run, :outcome, :counts, :at);

-- name: run_at
-- When a run began.
SELECT at FROM runs WHERE id = :run;

-- name: list_page
-- A page of a listing: these objects are there, whatever was thought before; answers what decides whether each needs a look.
UPDATE objects SET listed = CASE WHEN listed > :run THEN listed ELSE :run END, gone_at = NULL
WHERE store = :store AND key IN :keys
RETURNING key, stamp, engine, fresh, sha256;

-- name: add_object
-- An object never heard of before.
INSERT INTO objects (id, store, key, size, stamp, modified, listed, fresh, replaced, lacking)
VALUES (:id, :store, :key, :size, :stamp, :modified, :run, 0, 0, 'never looked at');

-- name: restamp_object
-- Listed with another stamp than the one looked at: what is known about it is about other bytes, until the next look.
UPDATE objects SET
    size = :size, stamp = :stamp, modified = :modified, fresh = 0,
    lacking = CASE WHEN attempt IS NULL THEN lacking ELSE 'changed since' END
WHERE store = :store AND key = :key;

-- name: objects_of_page
-- What the index says of the objects that looks are being recorded for.
SELECT id, key, sha256, decision FROM objects WHERE store = :store AND key IN :keys;

-- name: evidence_of_page
-- Looks that hold findings for any of these bytes; a second look at the same bytes by the same engine points at them.
-- The conditions are those of the index one_evidence, word for word: without one of them SQLite reads the whole table.
SELECT id, sha256, engine, standing FROM looks
WHERE sha256 IN :digests AND same_as IS NULL AND standing IN ('seen', 'broken')
    AND sha256 IS NOT NULL AND engine IS NOT NULL;

-- name: add_look
-- One attempt. A repeat of what is known carries same_as and no evidence of its own.
INSERT INTO looks (id, run, object, at, standing, size, stamp, modified, sha256, engine, same_as, kind, notes, unopened, reason, problem, milliseconds)
VALUES (:id, :run, :object, :at, :standing, :size, :stamp, :modified, :sha256, :engine, :same_as, :kind, :notes, :unopened, :reason, :problem, :milliseconds);

-- name: add_finding
-- One analyser's evidence.
INSERT INTO findings (id, look, concept, score, analyser, version, frame, source, measures)
VALUES (:id, :look, :concept, :score, :analyser, :version, :frame, :source, :measures);

-- name: add_decision
-- What policy or a person makes of a look.
INSERT INTO decisions (id, run, object, sha256, look, at, step, rule, because, policy, rank, decided_by, drill)
VALUES (:id, :run, :object, :sha256, :look, :at, :step, :rule, :because, :policy, :rank, :decided_by, :drill);

-- name: settled_object
-- The object was reached and its bytes are known; deeds about other bytes under its key no longer speak of it.
UPDATE objects SET
    size = :size, stamp = :stamp, modified = :modified,
    listed = CASE WHEN listed > :run THEN listed ELSE :run END,
    gone_at = NULL, fresh = 1, replaced = 0, lacking = :lacking,
    look = :look, attempt = :attempt, engine = :engine,
    decision = CASE WHEN :decision IS NOT NULL THEN :decision WHEN :same = 1 THEN decision ELSE NULL END,
    step = CASE WHEN :decision IS NOT NULL THEN :step WHEN :same = 1 THEN step ELSE NULL END,
    hidden_by = CASE WHEN :same = 1 THEN hidden_by ELSE NULL END,
    deed = CASE WHEN :same = 1 THEN deed ELSE (
        SELECT MAX(d.seq) FROM deeds d WHERE d.store = objects.store AND d.key = objects.key AND d.sha256 = :sha256
    ) END,
    sha256 = :sha256
WHERE id = :object;

-- name: unreached_object
-- The object could not be reached: what is known stays on record, and it counts as not scanned until it is reached.
UPDATE objects SET
    size = :size, stamp = :stamp, modified = :modified, attempt = :attempt, fresh = 0, lacking = 'unreached'
WHERE id = :object;

-- name: gone_object
-- The store says that it is not there.
UPDATE objects SET attempt = :attempt, gone_at = COALESCE(gone_at, :at) WHERE id = :object;

-- name: known
-- The settled look at these bytes by this engine version; a seen one before a broken one.
SELECT l.*, o.store, o.key FROM looks l JOIN objects o ON o.id = l.object
WHERE l.sha256 = :sha256 AND l.engine = :engine AND l.same_as IS NULL AND l.standing IN ('seen', 'broken')
ORDER BY CASE l.standing WHEN 'seen' THEN 0 ELSE 1 END
LIMIT 1;

-- name: findings_of
-- The findings of some looks.
SELECT * FROM findings WHERE look IN :looks ORDER BY id;

-- name: verdict
-- What a person last said about these bytes.
SELECT * FROM decisions WHERE sha256 = :sha256 AND decided_by <> 'policy' ORDER BY id DESC LIMIT 1;

-- name: sweep_hidden
-- Hidden by us, and rightly not listed.
UPDATE objects SET gone_at = :at WHERE store = :store AND gone_at IS NULL AND listed < :run AND hidden_by IS NOT NULL;

-- name: sweep_gone
-- Not listed by a complete listing. A run that began later may have met objects that this one could not, hence "<"; and one
-- that began earlier, such as the gate's, may have looked at what came in behind the listing's back.
UPDATE objects SET gone_at = :at WHERE store = :store AND gone_at IS NULL AND listed < :run AND hidden_by IS NULL
    AND NOT EXISTS (
        SELECT 1 FROM looks l WHERE l.id = objects.attempt AND l.standing IN ('seen', 'broken')
        AND l.at > (SELECT r.at FROM runs r WHERE r.id = :run)
    );

-- name: sweep_missing
-- How many objects `sweep_gone` would mark, and how many of them were ever looked at; with its conditions, word for word.
SELECT COUNT(*) AS unmet, COUNT(attempt) AS looked FROM objects
WHERE store = :store AND gone_at IS NULL AND listed < :run AND hidden_by IS NULL
    AND NOT EXISTS (
        SELECT 1 FROM looks l WHERE l.id = objects.attempt AND l.standing IN ('seen', 'broken')
        AND l.at > (SELECT r.at FROM runs r WHERE r.id = :run)
    );

-- name: hidden_since
-- How many objects that were listed in a run, or later, were hidden since.
SELECT COUNT(*) FROM objects WHERE store = :store AND gone_at IS NOT NULL AND hidden_by IS NOT NULL AND listed >= :run;

-- name: stale
-- Present objects that policy, but not this policy, decided about.
SELECT * FROM entries
WHERE id > :after AND gone_at IS NULL AND look IS NOT NULL
    AND (decision IS NULL OR (decided_by = 'policy' AND policy <> :policy))
ORDER BY id LIMIT :limit;

-- name: point_decision
-- The current decision of an object, unless other bytes were looked at, or a person decided, since it was read.
UPDATE objects SET decision = :decision, step = :step
WHERE id = :object AND (sha256 = :sha256 OR (sha256 IS NULL AND :sha256 IS NULL))
    AND (:decided_by <> 'policy' OR decision IS NULL
        OR EXISTS (SELECT 1 FROM decisions d WHERE d.id = objects.decision AND d.decided_by = 'policy'));

-- name: met_object
-- Met now with these bytes, as its platform says; nobody looked.
UPDATE objects SET sha256 = :sha256, gone_at = NULL, replaced = 0 WHERE id = :object;

-- name: look_of_objects
-- The evidence that some objects point at.
SELECT id, look FROM objects WHERE id IN :objects;

-- name: object_id
-- The number of an object.
SELECT id FROM objects WHERE store = :store AND key = :key;

-- name: objects_holding
-- Every object that holds, or held when it was last looked at, these bytes.
SELECT id, look FROM objects WHERE sha256 = :sha256 AND id > :after ORDER BY id LIMIT :limit;

-- name: owed
-- Quarantine decisions whose hiding is not done. An object that vanished while a hiding was unfinished may have been hidden by it;
-- of one whose restoring was not finished some may be back.
SELECT o.store, o.key, o.size, o.stamp, o.modified, o.sha256 AS object_sha256, d.*,
    e.seq, e.act, e.state, e.decision AS deed_decision, e.actor, e.at AS deed_at, e.drill AS deed_drill, e.place, e.problem
FROM objects o
JOIN decisions d ON d.id = o.decision
LEFT JOIN deeds e ON e.seq = o.deed AND (
    (e.act = 'hide' AND e.state IN ('begun', 'sealed', 'moved', 'failed')) OR (e.act = 'restore' AND e.state IN ('begun', 'moved', 'failed'))
)
WHERE o.step = 'quarantine' AND d.sha256 = o.sha256 AND o.replaced = 0
    AND (o.gone_at IS NULL OR e.seq IS NOT NULL)
    AND (o.done IS NULL OR o.done <> o.decision)
    AND (:drill = -1 OR d.drill = :drill)
    AND (:every = 1 OR o.key IN :only)
    AND (d.rank < :rank OR (d.rank = :rank AND d.id > :after))
ORDER BY d.rank DESC, d.id
LIMIT :limit;

-- name: last_deed
-- The end of the chain.
SELECT seq, hash FROM deeds ORDER BY seq DESC LIMIT 1;

-- name: add_deed
-- One link of the chain.
INSERT INTO deeds (seq, previous, hash, act, state, store, key, sha256, decision, actor, at, drill, place, problem)
VALUES (:seq, :previous, :hash, :act, :state, :store, :key, :sha256, :decision, :actor, :at, :drill, :place, :problem);

-- name: deed_begun
-- Anything that neither finishes nor ends a try.
UPDATE objects SET deed = :seq WHERE store = :store AND key = :key AND sha256 = :sha256;

-- name: deed_hide_moved
-- The store was told to hide it.
UPDATE objects SET deed = :seq, hidden_by = :seq WHERE store = :store AND key = :key AND sha256 = :sha256;

-- name: deed_hide_done
-- Confirmed. Should the same bytes be put there again, the empty freshness makes them be looked at and decided again.
UPDATE objects SET deed = :seq, hidden_by = :seq, gone_at = :at, done = :decision, fresh = 0
WHERE store = :store AND key = :key AND sha256 = :sha256;

-- name: deed_hide_changed
-- Other bytes lie there: nothing is owed until they are looked at.
UPDATE objects SET deed = :seq, replaced = 1, fresh = 0, lacking = 'changed since'
WHERE store = :store AND key = :key AND sha256 = :sha256;

-- name: deed_restore_moved
-- The store is being told to bring it back: until that is done, the hiding is owed again.
UPDATE objects SET deed = :seq, done = NULL WHERE store = :store AND key = :key AND sha256 = :sha256;

-- name: left_by_restore
-- The newest restoring of these bytes that was begun in the store and did not end well.
SELECT d.* FROM deeds d
WHERE d.store = :store AND d.key = :key AND d.sha256 = :sha256 AND d.act = 'restore' AND d.state = 'moved'
    AND NOT EXISTS (
        SELECT 1 FROM deeds n
        WHERE n.store = d.store AND n.key = d.key AND n.sha256 = d.sha256 AND n.seq > d.seq AND n.state = 'done'
    )
ORDER BY d.seq DESC LIMIT 1;

-- name: hiding_of
-- The newest hiding of these bytes that was done, or was told to the store.
SELECT d.* FROM deeds d
WHERE d.store = :store AND d.key = :key AND d.sha256 = :sha256 AND d.act = 'hide' AND d.state IN ('done', 'moved') AND d.place IS NOT NULL
ORDER BY d.seq DESC LIMIT 1;

-- name: deed_restore_done
-- It is back, and nothing is owed until something new is decided.
UPDATE objects SET deed = :seq, hidden_by = NULL, gone_at = NULL, done = decision
WHERE store = :store AND key = :key AND sha256 = :sha256;

-- name: acted
-- How many objects were begun to be hidden since a moment; the allowance is counted from this.
SELECT COUNT(*) FROM deeds d
WHERE d.at >= :since AND d.act = 'hide' AND d.state = 'begun' AND d.drill = :drill
    AND NOT EXISTS (
        SELECT 1 FROM deeds e
        WHERE e.store = d.store AND e.key = d.key AND e.sha256 = d.sha256 AND e.seq < d.seq
            AND e.at >= :since AND e.act = 'hide' AND e.state = 'begun' AND e.drill = :drill
    );

-- name: hidden
-- The newest hiding of each object and bytes, where no restoring was done after it; newest first.
SELECT d.* FROM deeds d
WHERE d.seq < :before AND d.act = 'hide' AND d.state IN ('done', 'moved')
    AND (:any_store = 1 OR d.store = :store) AND (:any_key = 1 OR d.key = :key)
    AND NOT EXISTS (
        SELECT 1 FROM deeds n
        WHERE n.store = d.store AND n.key = d.key AND n.sha256 = d.sha256 AND n.seq > d.seq
            AND ((n.act = 'restore' AND n.state = 'done') OR (n.act = 'hide' AND n.state IN ('done', 'moved')))
    )
ORDER BY d.seq DESC LIMIT :limit;

-- name: hidden_because
-- The same of what was decided by a rule for certain reasons.
SELECT d.* FROM deeds d JOIN decisions c ON c.id = d.decision
WHERE c.rule = :rule AND c.because IN :keys AND d.act = 'hide' AND d.state IN ('done', 'moved')
    AND NOT EXISTS (
        SELECT 1 FROM deeds n
        WHERE n.store = d.store AND n.key = d.key AND n.sha256 = d.sha256 AND n.seq > d.seq
            AND ((n.act = 'restore' AND n.state = 'done') OR (n.act = 'hide' AND n.state IN ('done', 'moved')))
    )
ORDER BY d.seq DESC;

-- name: entries
-- Objects with what is known of them, in the order of store and key.
SELECT * FROM entries
WHERE (store, key) > (:after_store, :after_key)
    AND (:any_store = 1 OR store = :store)
    AND (:any_key = 1 OR key = :key)
    AND (:any_standing = 1 OR attempt_standing = :standing)
    AND (:any_step = 1 OR step = :step)
    AND (:any_deed = 1 OR deed_state = :deed)
    AND (:any_act = 1 OR deed_act = :act)
    AND (:not_scanned = 0 OR (gone_at IS NULL AND (lacking IS NULL OR lacking <> 'broken: empty')
        AND (lacking IS NOT NULL OR (:engine <> '' AND engine <> :engine))))
ORDER BY store, key LIMIT :limit;

-- name: entry
-- One object.
SELECT * FROM entries WHERE store = :store AND key = :key;

-- name: history_looks
-- Every attempt at one object, oldest first, with the evidence of the look it repeats.
SELECT l.id, COALESCE(l.same_as, l.id) AS evidence, l.at, l.standing, l.size, l.stamp, l.modified, l.sha256, l.engine,
    f.kind, f.notes, f.unopened, l.reason, l.problem, l.milliseconds
FROM looks l JOIN looks f ON f.id = COALESCE(l.same_as, l.id)
WHERE l.object = :object ORDER BY l.id;

-- name: history_decisions
-- Every decision about one object, oldest first.
SELECT * FROM decisions WHERE object = :object ORDER BY id;

-- name: history_deeds
-- Everything done to one object, oldest first.
SELECT * FROM deeds WHERE store = :store AND key = :key ORDER BY seq;

-- name: totals
-- The whole index in a few groups.
SELECT
    CASE WHEN o.gone_at IS NULL THEN 'present' WHEN o.hidden_by IS NULL THEN 'gone' ELSE 'hidden' END AS place,
    CASE
        WHEN o.lacking IN ('never looked at', 'unreached', 'changed since', 'broken: empty') THEN o.lacking
        WHEN o.engine IS NULL OR o.engine <> :engine THEN 'other engine version'
        ELSE o.lacking
    END AS lacking,
    o.step AS step,
    COUNT(*) AS number
FROM objects o
GROUP BY 1, 2, 3;

-- name: totals_owed
-- How many decisions wait for their deed, by whether they are a drill.
SELECT d.drill AS drill, COUNT(*) AS number
FROM objects o
JOIN decisions d ON d.id = o.decision
LEFT JOIN deeds e ON e.seq = o.deed AND (
    (e.act = 'hide' AND e.state IN ('begun', 'sealed', 'moved', 'failed')) OR (e.act = 'restore' AND e.state IN ('begun', 'moved', 'failed'))
)
WHERE o.step = 'quarantine' AND d.sha256 = o.sha256 AND o.replaced = 0
    AND (o.gone_at IS NULL OR e.seq IS NOT NULL)
    AND (o.done IS NULL OR o.done <> o.decision)
GROUP BY d.drill;

-- name: totals_hidden
-- How many hidden objects could be restored.
SELECT COUNT(*) FROM deeds d
WHERE d.act = 'hide' AND d.state IN ('done', 'moved')
    AND NOT EXISTS (
        SELECT 1 FROM deeds n
        WHERE n.store = d.store AND n.key = d.key AND n.sha256 = d.sha256 AND n.seq > d.seq
            AND ((n.act = 'restore' AND n.state = 'done') OR (n.act = 'hide' AND n.state IN ('done', 'moved')))
    );

-- name: totals_items
-- How many different contents the objects hold, or held when they were last there.
SELECT COUNT(*) FROM (SELECT sha256 FROM objects WHERE sha256 IS NOT NULL GROUP BY sha256) AS items;

-- name: totals_further
-- Objects that the dear analyser was asked about by this engine: by what was found, or by the random sample alone. Hidden ones
-- count: the sample would forget what it found as soon as it is acted on. What could not be seen and drills are no evidence.
SELECT w.found AS found, CASE WHEN o.step = 'quarantine' AND d.drill = 0 THEN 1 ELSE 0 END AS flagged,
    COUNT(*) AS number, COUNT(DISTINCT o.sha256) AS contents
FROM (
    SELECT f.look, MAX(CASE f.concept WHEN 'further' THEN 1 ELSE 0 END) AS found
    FROM findings f WHERE f.concept IN ('further', 'sampled') GROUP BY f.look
) w
JOIN objects o ON o.look = w.look
LEFT JOIN decisions d ON d.id = o.decision
WHERE (o.gone_at IS NULL OR o.hidden_by IS NOT NULL) AND o.engine = :engine AND (o.lacking IS NULL OR o.lacking = 'partly')
GROUP BY 1, 2;

-- name: chain
-- The record of deeds, link by link.
SELECT * FROM deeds WHERE seq > :after ORDER BY seq LIMIT :limit;

-- name: dangling
-- Pointers to rows that are not there, by what they should point at.
SELECT 'object without its look' AS what, COUNT(*) AS number FROM objects o
    WHERE o.look IS NOT NULL AND NOT EXISTS (SELECT 1 FROM looks l WHERE l.id = o.look)
UNION ALL SELECT 'object without its last attempt', COUNT(*) FROM objects o
    WHERE o.attempt IS NOT NULL AND NOT EXISTS (SELECT 1 FROM looks l WHERE l.id = o.attempt)
UNION ALL SELECT 'object without its decision', COUNT(*) FROM objects o
    WHERE o.decision IS NOT NULL AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.id = o.decision)
UNION ALL SELECT 'object without its deed', COUNT(*) FROM objects o
    WHERE o.deed IS NOT NULL AND NOT EXISTS (SELECT 1 FROM deeds d WHERE d.seq = o.deed)
UNION ALL SELECT 'look without its object', COUNT(*) FROM looks l
    WHERE NOT EXISTS (SELECT 1 FROM objects o WHERE o.id = l.object)
UNION ALL SELECT 'look without the one it repeats', COUNT(*) FROM looks l
    WHERE l.same_as IS NOT NULL AND NOT EXISTS (SELECT 1 FROM looks f WHERE f.id = l.same_as)
UNION ALL SELECT 'finding without its look', COUNT(*) FROM findings f
    WHERE NOT EXISTS (SELECT 1 FROM looks l WHERE l.id = f.look)
UNION ALL SELECT 'decision without its object', COUNT(*) FROM decisions d
    WHERE d.object IS NOT NULL AND NOT EXISTS (SELECT 1 FROM objects o WHERE o.id = d.object)
UNION ALL SELECT 'deed without its decision', COUNT(*) FROM deeds e
    WHERE NOT EXISTS (SELECT 1 FROM decisions d WHERE d.id = e.decision)
UNION ALL SELECT 'debt without its answer', COUNT(*) FROM debts b
    WHERE NOT EXISTS (SELECT 1 FROM answers a WHERE a.id = b.answer)
UNION ALL SELECT 'payment without its debt', COUNT(*) FROM payments p
    WHERE NOT EXISTS (SELECT 1 FROM debts b WHERE b.id = p.debt)
UNION ALL SELECT 'payment without its look', COUNT(*) FROM payments p
    WHERE p.look IS NOT NULL AND NOT EXISTS (SELECT 1 FROM looks l WHERE l.id = p.look);


-- name: add_name
-- Another name of an object; told again it is no news.
INSERT INTO names (store, key, kind, name, run) VALUES (:store, :key, :kind, :name, :run) ON CONFLICT DO NOTHING;

-- name: names_of
-- Every name that an object was ever known by.
SELECT kind, name FROM names WHERE store = :store AND key = :key ORDER BY kind, name;

-- name: named
-- Which objects a name meant.
SELECT store, key, kind FROM names WHERE name = :name ORDER BY store, key;

-- name: holding
-- Which objects hold, or held when last looked at, these bytes.
SELECT store, key FROM objects WHERE sha256 = :sha256 ORDER BY store, key LIMIT 1000;

-- name: last_upload_ids
-- The highest numbers of answers and debts.
SELECT (SELECT COALESCE(MAX(id), 0) FROM answers) AS answers, (SELECT COALESCE(MAX(id), 0) FROM debts) AS debts;

-- name: add_answer
-- What the gate answered.
INSERT INTO answers (id, run, at, face, sha256, original, size, claimed, passed, why, sealed, drill, problem, milliseconds)
VALUES (:id, :run, :at, :face, :sha256, :original, :size, :claimed, :passed, :why, :sealed, :drill, :problem, :milliseconds);

-- name: add_debt
-- Let through unscanned.
INSERT INTO debts (id, answer, at, sha256, size, claimed, store, key, why)
VALUES (:id, :answer, :at, :sha256, :size, :claimed, :store, :key, :why);

-- name: unpaid_of_page
-- Debts over any of these bytes.
SELECT d.id, d.sha256 FROM debts d
WHERE d.sha256 IN :digests AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.debt = d.id);

-- name: add_payment
-- A debt is paid by a look, or lapses with a problem.
INSERT INTO payments (debt, at, look, problem) VALUES (:debt, :at, :look, :problem) ON CONFLICT DO NOTHING;

-- name: leave_gate
-- What was refused, or lies in no store that is known, is not there.
UPDATE objects SET gone_at = :at WHERE store = :store AND key = :key;

-- name: debts
-- Unpaid debts, oldest first.
SELECT d.*, CASE WHEN EXISTS (
        SELECT 1 FROM looks l WHERE l.sha256 = d.sha256 AND l.engine = :engine AND l.standing = 'broken'
            AND l.same_as IS NULL AND l.standing IN ('seen', 'broken')
    ) THEN 1 ELSE 0 END AS broken
FROM debts d
WHERE d.id > :after AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.debt = d.id)
ORDER BY d.id LIMIT :limit;

-- name: totals_answers
-- How many answers of which kind since a moment.
SELECT passed, why, COUNT(*) AS number, SUM(CASE WHEN sealed = 0 THEN 1 ELSE 0 END) AS unsealed FROM answers
WHERE at >= :since AND drill = 0 AND face <> 'unwrapped' GROUP BY passed, why;

-- name: last_ten_answers
-- Why the gate answered its last uploads as it did.
SELECT why FROM answers
WHERE id > (SELECT COALESCE(MAX(id), 0) FROM answers) - 500 AND drill = 0 AND face <> 'unwrapped' ORDER BY id DESC LIMIT 10;

-- name: envelopes
-- Uploads that were said to be a picture or a video, and whose bytes begin as none.
SELECT a.sha256, MIN(a.at) AS at, MAX(a.size) AS size, MAX(a.claimed) AS claimed, MAX(COALESCE(a.sealed, 0)) AS sealed,
    MAX(a.drill) AS drill, MAX(l.notes) AS notes,
    (SELECT MAX(d.id) FROM debts d WHERE d.sha256 = a.sha256 AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.debt = d.id)) AS debt,
    (SELECT COUNT(*) FROM objects o WHERE o.sha256 = a.sha256 AND o.gone_at IS NULL) AS objects
FROM answers a JOIN looks l ON l.sha256 = a.sha256
WHERE a.face <> 'unwrapped' AND (a.claimed LIKE 'image/%' OR a.claimed LIKE 'video/%')
    AND l.standing = 'broken' AND l.same_as IS NULL AND l.reason = 'unsupported' AND l.problem LIKE 'unknown (unknown)%'
GROUP BY a.sha256 ORDER BY 2, 1;

-- name: unwrapped
-- The envelopes whose picture was taken out of them.
SELECT DISTINCT original FROM answers WHERE face = 'unwrapped';

-- name: unopened_debts
-- Unpaid debts that were looked at and that this engine version cannot open, by what they are said to be, what they are, and why.
SELECT d.claimed, l.problem, l.kind, CASE WHEN d.size < :least THEN 1 ELSE 0 END AS small, COUNT(*) AS number FROM debts d JOIN looks l ON l.sha256 = d.sha256
WHERE l.engine = :engine AND l.standing = 'broken' AND l.same_as IS NULL AND l.reason = 'unsupported'
    AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.debt = d.id)
GROUP BY d.claimed, l.problem, l.kind, small ORDER BY 5 DESC, 1, 2;

-- name: totals_debts
-- Unpaid debts: how many, since when, and how many of them were looked at and cannot be decoded.
SELECT COUNT(*) AS number, MIN(d.at) AS oldest, COALESCE(SUM(CASE WHEN EXISTS (
        SELECT 1 FROM looks l WHERE l.sha256 = d.sha256 AND l.engine = :engine AND l.standing = 'broken'
            AND l.same_as IS NULL AND l.standing IN ('seen', 'broken')
    ) THEN 1 ELSE 0 END), 0) AS broken
FROM debts d WHERE NOT EXISTS (SELECT 1 FROM payments p WHERE p.debt = d.id);

-- name: totals_lapsed
-- Debts that ended without a look.
SELECT COUNT(*) FROM payments WHERE look IS NULL;

-- name: answers_about
-- Every answer about these bytes, oldest first.
SELECT * FROM answers WHERE sha256 = :sha256 OR original = :sha256 ORDER BY id;

-- name: answers_since
-- The newest answers, as far as they came since a moment, oldest first.
SELECT * FROM answers WHERE id > (SELECT COALESCE(MAX(id), 0) FROM answers) - :limit AND at >= :since ORDER BY id;

-- name: was_debt
-- Whether these bytes were ever let through unscanned.
SELECT 1 FROM debts WHERE sha256 = :sha256 LIMIT 1;

-- name: restoring
-- Deeds that began to restore something since a moment, where nothing was done to the same bytes there since.
-- The gate asks this, so it goes by time, and by no other index: SQLite would rather read every deed of the store.
SELECT DISTINCT d.store AS store, d.key AS key, d.sha256 AS sha256 FROM deeds d
WHERE d.at >= :since AND d.act = 'restore' AND d.state = 'begun' AND d.store || '' IN :stores
    AND NOT EXISTS (
        SELECT 1 FROM deeds n WHERE n.store = d.store AND n.key = d.key AND n.sha256 = d.sha256 AND n.seq > d.seq
            AND NOT (n.act = 'restore' AND n.state = 'moved')
    );

-- name: add_trace
-- Somebody asked who is behind an object.
INSERT INTO traces (run, at, actor, reason, subject, sha256, sealed, counts, problem)
VALUES (:run, :at, :actor, :reason, :subject, :sha256, :sealed, :counts, :problem);

-- name: traces_of
-- Who asked about these bytes.
SELECT * FROM traces WHERE sha256 = :sha256 ORDER BY id;

-- name: add_platform_deed
-- Something was done on a platform.
INSERT INTO platform_deeds (run, at, actor, platform, sha256, act, target, state, problem)
VALUES (:run, :at, :actor, :platform, :sha256, :act, :target, :state, :problem);

-- name: platform_deeds_of
-- What was done on platforms about these bytes.
SELECT * FROM platform_deeds WHERE sha256 = :sha256 ORDER BY id;

-- name: mark
-- What a watching process remembered under a name.
SELECT value, at FROM marks WHERE name = :name;

-- name: marks_between
-- What was remembered under names of one kind.
SELECT name, value, at FROM marks WHERE name >= :first AND name < :last ORDER BY name;

-- name: set_mark
-- The newest value stands.
INSERT INTO marks (name, value, at) VALUES (:name, :value, :at)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at;

-- name: unsettled
-- Present objects of a store that this engine version has not settled, known from earlier listings; the newest dated key first.
SELECT key, size, stamp, modified FROM objects
WHERE store = :store AND key < :before AND gone_at IS NULL
    AND (fresh = 0 OR engine IS NULL OR engine <> :engine OR (sha256 IS NULL AND size <= :limit))
ORDER BY key DESC LIMIT :page;

-- name: oldest_lacking
-- How long objects have not been scanned, by reason.
SELECT reason AS lacking, MIN(modified) AS oldest FROM (
    SELECT
        CASE
            WHEN lacking IN ('never looked at', 'unreached', 'changed since', 'broken: empty') THEN lacking
            WHEN engine IS NULL OR engine <> :engine THEN 'other engine version'
            ELSE lacking
        END AS reason,
        modified
    FROM objects WHERE gone_at IS NULL
) present
WHERE reason IS NOT NULL AND reason <> 'broken: empty' GROUP BY reason;

-- name: flagged_after
-- What was suspected since a watching process last told of it.
SELECT COUNT(DISTINCT CASE WHEN step = 'quarantine' AND drill = 0 THEN object END) AS objects, COALESCE(MAX(id), :after) AS last
FROM decisions WHERE id > :after;

-- name: add_legacy
-- What an earlier tool said about a name; imported again it is no news.
INSERT INTO legacy (store, key, tool, suspected, at, run) VALUES (:store, :key, :tool, :suspected, :at, :run)
ON CONFLICT DO NOTHING;

-- name: legacy_of
-- What earlier tools said about a name.
SELECT tool, suspected, at FROM legacy WHERE store = :store AND key = :key ORDER BY tool;

-- name: add_unmet
-- An object that nobody has listed yet; a complete listing that does not meet it marks it as gone.
INSERT INTO objects (id, store, key, size, stamp, modified, listed, fresh, replaced, lacking)
VALUES (:id, :store, :key, 0, '', NULL, :run, 0, 0, 'never looked at');

-- name: person_decisions
-- Every decision of a person about these bytes, oldest first; one for several objects is told once.
SELECT DISTINCT at, step, rule, because, policy, rank, decided_by, drill FROM decisions
WHERE sha256 = :sha256 AND decided_by <> 'policy' ORDER BY at;

-- name: sealed_deeds
-- The newest sealing of each object and bytes, and whether they were restored since.
SELECT d.seq, d.sha256, d.drill, d.store, d.key, EXISTS (
    SELECT 1 FROM deeds r WHERE r.store = d.store AND r.key = d.key AND r.sha256 = d.sha256 AND r.seq > d.seq
        AND r.act = 'restore' AND r.state = 'done'
) AS restored
FROM deeds d
WHERE d.seq > :after AND d.act = 'hide' AND d.state = 'sealed'
    AND NOT EXISTS (
        SELECT 1 FROM deeds n
        WHERE n.store = d.store AND n.key = d.key AND n.sha256 = d.sha256 AND n.seq > d.seq AND n.act = 'hide' AND n.state = 'sealed'
    )
ORDER BY d.seq LIMIT :limit;

-- name: sealed_answers
-- Refused uploads whose bytes were sealed.
SELECT id, sha256, drill FROM answers WHERE id > :after AND sealed = 1 AND sha256 IS NOT NULL ORDER BY id LIMIT :limit;

-- name: sealed_traces
-- Traces that were sealed.
SELECT id, sealed FROM traces WHERE id > :after AND sealed IS NOT NULL ORDER BY id LIMIT :limit;

-- name: sealed_before_deletion
-- Pictures that were sealed because a platform was about to delete them.
SELECT id, sha256, target FROM platform_deeds
WHERE id > :after AND act = 'seal picture' AND state = 'done' AND sha256 IS NOT NULL ORDER BY id LIMIT :limit;

-- name: sealed_known
-- Whether anything is on record that could have sealed this; the first line finds nearly all by an index.
SELECT 1 FROM objects o JOIN deeds d ON d.store = o.store AND d.key = o.key WHERE o.sha256 = :sha256 AND d.sha256 = :sha256
UNION ALL SELECT 1 FROM deeds WHERE sha256 = :sha256
UNION ALL SELECT 1 FROM answers WHERE sha256 = :sha256
UNION ALL SELECT 1 FROM traces WHERE sealed = :sha256
UNION ALL SELECT 1 FROM platform_deeds WHERE sha256 = :sha256 AND act = 'seal picture' AND state = 'done'
LIMIT 1;

-- name: restored
-- The newest restoring of each object and bytes, where nothing was hidden there since.
SELECT d.* FROM deeds d
WHERE d.seq > :after AND d.act = 'restore' AND d.state = 'done'
    AND NOT EXISTS (
        SELECT 1 FROM deeds n
        WHERE n.store = d.store AND n.key = d.key AND n.sha256 = d.sha256 AND n.seq > d.seq AND n.state IN ('done', 'moved')
    )
ORDER BY d.seq LIMIT :limit;

-- name: unfinished_restores
-- The last event of every restoring that did not end.
SELECT d.* FROM deeds d
WHERE d.seq > :after AND d.act = 'restore' AND d.state IN ('begun', 'moved', 'failed')
    AND NOT EXISTS (SELECT 1 FROM deeds n WHERE n.store = d.store AND n.key = d.key AND n.sha256 = d.sha256 AND n.seq > d.seq)
ORDER BY d.seq LIMIT :limit;

-- name: came_back
-- Whether these bytes were ever restored.
SELECT 1 FROM deeds WHERE act = 'restore' AND state = 'done' AND sha256 = :sha256 LIMIT 1;

-- name: words_left
-- The last try to restore bytes that never came back, where a person's last word, given for that restoring, lets them pass.
SELECT d.* FROM deeds d
WHERE d.seq > :after AND d.act = 'restore' AND d.state <> 'done'
    AND NOT EXISTS (SELECT 1 FROM deeds n WHERE n.sha256 = d.sha256 AND n.act = 'restore' AND (n.seq > d.seq OR n.state = 'done'))
    AND EXISTS (
        SELECT 1 FROM decisions w
        WHERE w.sha256 = d.sha256 AND w.decided_by <> 'policy' AND w.step = 'pass' AND w.rule = 'restored by a person'
            AND w.id = (SELECT MAX(l.id) FROM decisions l WHERE l.sha256 = d.sha256 AND l.decided_by <> 'policy')
    )
ORDER BY d.seq LIMIT :limit;

-- name: last_effect
-- What was done last to these bytes under this key.
SELECT act, at FROM deeds
WHERE store = :store AND key = :key AND sha256 = :sha256 AND (state = 'done' OR (act = 'hide' AND state = 'moved'))
ORDER BY seq DESC LIMIT 1;
