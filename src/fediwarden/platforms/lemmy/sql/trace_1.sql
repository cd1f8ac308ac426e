-- What a trace asks the database of Lemmy 1.0. Every column named here, and no other one, is granted by grants_1.sql.
-- `like` are LIKE patterns that an index may answer, `exact` a regular expression with the borders that LIKE cannot say.

-- name: uploads
-- Who uploaded it; for a preview that Lemmy made, whose post it belongs to.
SELECT pictrs_alias AS alias, published_at AS at, person_id AS person, thumbnail_for_post_id AS thumbnail_of
FROM local_image WHERE pictrs_alias = ANY (%(aliases)s) ORDER BY pictrs_alias;

-- name: other_uploads
SELECT pictrs_alias AS alias, published_at AS at, person_id AS person, thumbnail_for_post_id AS thumbnail_of
FROM local_image
WHERE person_id = ANY (%(persons)s) AND pictrs_alias <> ALL (%(aliases)s) AND thumbnail_for_post_id IS NULL
ORDER BY published_at DESC, pictrs_alias LIMIT %(limit)s;

-- name: aliases
-- Every picture that Lemmy took in, page by page.
SELECT pictrs_alias AS alias FROM local_image WHERE pictrs_alias > %(after)s ORDER BY pictrs_alias LIMIT %(limit)s;

-- name: persons
SELECT p.id, p.name, p.ap_id AS address, p.local, i.domain, p.display_name, p.published_at AS created, p.deleted,
    EXISTS (
        SELECT 1 FROM instance_actions ia
        WHERE ia.person_id = p.id AND ia.received_ban_at IS NOT NULL
            AND (ia.ban_expires_at IS NULL OR ia.ban_expires_at > now())
            AND ia.instance_id = (SELECT s.instance_id FROM local_site ls JOIN site s ON s.id = ls.site_id LIMIT 1)
    ) AS banned,
    lu.admin, lu.id AS local_user, lu.email
FROM person p LEFT JOIN instance i ON i.id = p.instance_id LEFT JOIN local_user lu ON lu.person_id = p.id
WHERE p.id = ANY (%(persons)s) ORDER BY p.id;

-- name: sessions
-- The address of a login, not of an upload. The token beside it is the session itself, and is never asked for.
SELECT lu.person_id AS person, lt.published_at AS started, lt.ip, lt.user_agent
FROM login_token lt JOIN local_user lu ON lu.id = lt.user_id
WHERE lu.person_id = ANY (%(persons)s) ORDER BY lu.person_id, lt.published_at;

-- name: communities
SELECT co.id, co.name, co.ap_id AS address, i.domain
FROM community co LEFT JOIN instance i ON i.id = co.instance_id WHERE co.id = ANY (%(communities)s) ORDER BY co.id;

-- name: uses post
SELECT po.id, shown.field, po.ap_id AS address, po.creator_id AS by, po.community_id AS community, po.published_at AS at,
    po.local AS local, po.removed AS removed, po.deleted AS deleted
FROM post po
CROSS JOIN LATERAL (VALUES ('url', po.url::text), ('thumbnail_url', po.thumbnail_url::text), ('embed_video_url', po.embed_video_url::text), ('body', po.body::text)) AS shown (field, text)
WHERE (po.id IN (SELECT po.id FROM unnest(%(like)s::text[]) AS wanted (pattern) JOIN post po ON po.body LIKE wanted.pattern)
    OR po.url::text LIKE ANY (%(like)s) OR po.thumbnail_url LIKE ANY (%(like)s) OR po.embed_video_url LIKE ANY (%(like)s))
    AND shown.text LIKE ANY (%(like)s) AND shown.text ~ %(exact)s
ORDER BY po.id, shown.field;

-- name: uses comment
SELECT c.id, shown.field, c.ap_id AS address, c.creator_id AS by, c.community_id AS community, c.published_at AS at,
    c.local AS local, c.removed AS removed, c.deleted AS deleted
FROM comment c
CROSS JOIN LATERAL (VALUES ('content', c.content::text)) AS shown (field, text)
WHERE (c.id IN (SELECT c.id FROM unnest(%(like)s::text[]) AS wanted (pattern) JOIN comment c ON c.content LIKE wanted.pattern))
    AND shown.text LIKE ANY (%(like)s) AND shown.text ~ %(exact)s
ORDER BY c.id, shown.field;

-- name: uses private message
SELECT m.id, shown.field, m.ap_id AS address, m.creator_id AS by, NULL::int AS community, m.published_at AS at,
    m.local AS local, m.removed AS removed, m.deleted AS deleted
FROM private_message m
CROSS JOIN LATERAL (VALUES ('content', m.content::text)) AS shown (field, text)
WHERE (m.content LIKE ANY (%(like)s))
    AND shown.text LIKE ANY (%(like)s) AND shown.text ~ %(exact)s
ORDER BY m.id, shown.field;

-- name: uses profile
SELECT p.id, shown.field, p.ap_id AS address, p.id AS by, NULL::int AS community, p.published_at AS at,
    p.local AS local, false AS removed, p.deleted AS deleted
FROM person p
CROSS JOIN LATERAL (VALUES ('avatar', p.avatar::text), ('banner', p.banner::text), ('bio', p.bio::text)) AS shown (field, text)
WHERE (p.avatar LIKE ANY (%(like)s) OR p.banner LIKE ANY (%(like)s) OR p.bio LIKE ANY (%(like)s))
    AND shown.text LIKE ANY (%(like)s) AND shown.text ~ %(exact)s
ORDER BY p.id, shown.field;

-- name: uses community
SELECT co.id, shown.field, co.ap_id AS address, NULL::int AS by, co.id AS community, co.published_at AS at,
    co.local AS local, co.removed AS removed, co.deleted AS deleted
FROM community co
CROSS JOIN LATERAL (VALUES ('icon', co.icon::text), ('banner', co.banner::text), ('sidebar', co.sidebar::text), ('summary', co.summary::text)) AS shown (field, text)
WHERE (co.icon LIKE ANY (%(like)s) OR co.banner LIKE ANY (%(like)s) OR co.sidebar LIKE ANY (%(like)s) OR co.summary::text LIKE ANY (%(like)s))
    AND shown.text LIKE ANY (%(like)s) AND shown.text ~ %(exact)s
ORDER BY co.id, shown.field;

-- name: uses multi-community
SELECT mc.id, shown.field, mc.ap_id AS address, mc.creator_id AS by, NULL::int AS community, mc.published_at AS at,
    mc.local AS local, false AS removed, mc.deleted AS deleted
FROM multi_community mc
CROSS JOIN LATERAL (VALUES ('sidebar', mc.sidebar::text), ('summary', mc.summary::text)) AS shown (field, text)
WHERE (mc.sidebar LIKE ANY (%(like)s) OR mc.summary::text LIKE ANY (%(like)s))
    AND shown.text LIKE ANY (%(like)s) AND shown.text ~ %(exact)s
ORDER BY mc.id, shown.field;

-- name: uses site
SELECT s.id, shown.field, s.ap_id AS address, NULL::int AS by, NULL::int AS community, s.published_at AS at,
    NULL::boolean AS local, false AS removed, false AS deleted
FROM site s
CROSS JOIN LATERAL (VALUES ('icon', s.icon::text), ('banner', s.banner::text), ('sidebar', s.sidebar::text)) AS shown (field, text)
WHERE (s.icon LIKE ANY (%(like)s) OR s.banner LIKE ANY (%(like)s) OR s.sidebar LIKE ANY (%(like)s))
    AND shown.text LIKE ANY (%(like)s) AND shown.text ~ %(exact)s
ORDER BY s.id, shown.field;

-- name: uses emoji
SELECT e.id, shown.field, e.image_url AS address, NULL::int AS by, NULL::int AS community, e.published_at AS at,
    NULL::boolean AS local, false AS removed, false AS deleted
FROM custom_emoji e
CROSS JOIN LATERAL (VALUES ('image_url', e.image_url::text)) AS shown (field, text)
WHERE (e.image_url LIKE ANY (%(like)s))
    AND shown.text LIKE ANY (%(like)s) AND shown.text ~ %(exact)s
ORDER BY e.id, shown.field;

-- name: uses tagline
SELECT t.id, shown.field, '' AS address, NULL::int AS by, NULL::int AS community, t.published_at AS at,
    NULL::boolean AS local, false AS removed, false AS deleted
FROM tagline t
CROSS JOIN LATERAL (VALUES ('content', t.content::text)) AS shown (field, text)
WHERE (t.content LIKE ANY (%(like)s))
    AND shown.text LIKE ANY (%(like)s) AND shown.text ~ %(exact)s
ORDER BY t.id, shown.field;

-- name: uses report of a post
SELECT r.id, shown.field, '' AS address, NULL::int AS by, NULL::int AS community, r.published_at AS at,
    NULL::boolean AS local, false AS removed, false AS deleted
FROM post_report r
CROSS JOIN LATERAL (VALUES ('original_post_url', r.original_post_url::text), ('original_post_body', r.original_post_body::text)) AS shown (field, text)
WHERE (r.original_post_url LIKE ANY (%(like)s) OR r.original_post_body LIKE ANY (%(like)s))
    AND shown.text LIKE ANY (%(like)s) AND shown.text ~ %(exact)s
ORDER BY r.id, shown.field;

-- name: uses report of a comment
SELECT r.id, shown.field, '' AS address, NULL::int AS by, NULL::int AS community, r.published_at AS at,
    NULL::boolean AS local, false AS removed, false AS deleted
FROM comment_report r
CROSS JOIN LATERAL (VALUES ('original_comment_text', r.original_comment_text::text)) AS shown (field, text)
WHERE (r.original_comment_text LIKE ANY (%(like)s))
    AND shown.text LIKE ANY (%(like)s) AND shown.text ~ %(exact)s
ORDER BY r.id, shown.field;

-- name: uses report of a private message
SELECT r.id, shown.field, '' AS address, NULL::int AS by, NULL::int AS community, r.published_at AS at,
    NULL::boolean AS local, false AS removed, false AS deleted
FROM private_message_report r
CROSS JOIN LATERAL (VALUES ('original_pm_text', r.original_pm_text::text)) AS shown (field, text)
WHERE (r.original_pm_text LIKE ANY (%(like)s))
    AND shown.text LIKE ANY (%(like)s) AND shown.text ~ %(exact)s
ORDER BY r.id, shown.field;

-- name: uses report of a community
SELECT r.id, shown.field, '' AS address, NULL::int AS by, r.community_id AS community, r.published_at AS at,
    NULL::boolean AS local, false AS removed, false AS deleted
FROM community_report r
CROSS JOIN LATERAL (VALUES ('original_community_icon', r.original_community_icon::text), ('original_community_banner', r.original_community_banner::text), ('original_community_sidebar', r.original_community_sidebar::text), ('original_community_summary', r.original_community_summary::text)) AS shown (field, text)
WHERE (r.original_community_icon LIKE ANY (%(like)s) OR r.original_community_banner LIKE ANY (%(like)s) OR r.original_community_sidebar LIKE ANY (%(like)s) OR r.original_community_summary LIKE ANY (%(like)s))
    AND shown.text LIKE ANY (%(like)s) AND shown.text ~ %(exact)s
ORDER BY r.id, shown.field;
