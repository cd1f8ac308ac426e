-- What a trace asks the database of Lemmy 1.0. Every column named here, and no other one, is granted by grants_1.sql.
-- `like` are patterns without regard to case that an index may answer, `exact` a regular expression with the borders that LIKE cannot say, `equal` whole addresses.
--
-- A search (`uses ...`) names the columns that may show a picture, and is asked for several of them or for one: "=" says that an index
-- answers whole addresses, "==" that nothing else is asked, "~" that a trigram index answers LIKE. `owners` are those behind which further
-- owners of the picture may stand. {m.removed|false} is false where the version has no such column.

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

-- name: domain
-- This server's own, and the address of its first local account: the one lacks the port that the other has.
SELECT i.domain, p.ap_id AS address FROM local_user lu JOIN person p ON p.id = lu.person_id JOIN instance i ON i.id = p.instance_id ORDER BY lu.id LIMIT 1;

-- name: pairs
-- A picture's post and its preview are other pictures that show the same.
SELECT po.id, po.url, po.thumbnail_url FROM post po WHERE po.id = ANY (%(posts)s) ORDER BY po.id;

-- name: previews
SELECT pictrs_alias AS alias, thumbnail_for_post_id AS post FROM local_image WHERE thumbnail_for_post_id = ANY (%(posts)s) ORDER BY pictrs_alias;

-- name: uses post
-- columns: url= thumbnail_url embed_video_url name~ body~ alt_text~ embed_title embed_description
-- owners: url thumbnail_url body
SELECT po.id, shown.field, po.ap_id AS address, po.creator_id AS by, po.community_id AS community,
    po.published_at AS at, po.local AS local, po.removed AS removed, po.deleted AS deleted
FROM post po
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses comment
-- columns: content~
-- owners: content
SELECT c.id, shown.field, c.ap_id AS address, c.creator_id AS by, c.community_id AS community,
    c.published_at AS at, c.local AS local, c.removed AS removed, c.deleted AS deleted
FROM comment c
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses private message
-- columns: content
SELECT m.id, shown.field, m.ap_id AS address, m.creator_id AS by, NULL::int AS community,
    m.published_at AS at, m.local AS local, m.removed AS removed, m.deleted AS deleted
FROM private_message m
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses profile
-- columns: avatar banner bio~ display_name~
-- owners: avatar banner bio
SELECT p.id, shown.field, p.ap_id AS address, p.id AS by, NULL::int AS community,
    p.published_at AS at, p.local AS local, false AS removed, p.deleted AS deleted
FROM person p
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses community
-- columns: icon banner title~ sidebar~ summary~
SELECT co.id, shown.field, co.ap_id AS address, NULL::int AS by, co.id AS community,
    co.published_at AS at, co.local AS local, co.removed AS removed, co.deleted AS deleted
FROM community co
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses multi-community
-- columns: title~ sidebar~ summary~
SELECT mc.id, shown.field, mc.ap_id AS address, mc.creator_id AS by, NULL::int AS community,
    mc.published_at AS at, mc.local AS local, false AS removed, mc.deleted AS deleted
FROM multi_community mc
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses community tag
-- columns: display_name summary
SELECT ct.id, shown.field, ct.ap_id AS address, NULL::int AS by, ct.community_id AS community,
    ct.published_at AS at, NULL::boolean AS local, false AS removed, ct.deleted AS deleted
FROM community_tag ct
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses note
-- columns: note
SELECT pa.target_id AS id, shown.field, 'about ' || p.ap_id AS address, pa.person_id AS by, NULL::int AS community,
    pa.noted_at AS at, true AS local, false AS removed, false AS deleted
FROM person_actions pa JOIN person p ON p.id = pa.target_id
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses site
-- columns: icon banner sidebar summary content_warning
SELECT s.id, shown.field, s.ap_id AS address, NULL::int AS by, NULL::int AS community,
    s.published_at AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM site s
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses site local
-- What only this server keeps about itself.
-- columns: application_question legal_information
SELECT ls.id, shown.field, '' AS address, NULL::int AS by, NULL::int AS community,
    ls.published_at AS at, true AS local, false AS removed, false AS deleted
FROM local_site ls
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses application
-- columns: answer deny_reason
SELECT ra.id, shown.field, '' AS address, lu.person_id AS by, NULL::int AS community,
    ra.published_at AS at, true AS local, false AS removed, false AS deleted
FROM registration_application ra LEFT JOIN local_user lu ON lu.id = ra.local_user_id
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses emoji
-- columns: image_url= shortcode alt_text category
SELECT e.id, shown.field, e.image_url AS address, NULL::int AS by, NULL::int AS community,
    e.published_at AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM custom_emoji e
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses tagline
-- columns: content
SELECT t.id, shown.field, '' AS address, NULL::int AS by, NULL::int AS community,
    t.published_at AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM tagline t
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses report of a post
-- columns: original_post_name original_post_url original_post_body reason
SELECT r.id, shown.field, '' AS address, NULL::int AS by, NULL::int AS community,
    r.published_at AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM post_report r
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses report of a comment
-- columns: original_comment_text reason
SELECT r.id, shown.field, '' AS address, NULL::int AS by, NULL::int AS community,
    r.published_at AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM comment_report r
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses report of a private message
-- columns: original_pm_text reason
SELECT r.id, shown.field, '' AS address, NULL::int AS by, NULL::int AS community,
    r.published_at AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM private_message_report r
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses report of a community
-- columns: original_community_name original_community_title original_community_icon original_community_banner original_community_sidebar original_community_summary reason
SELECT r.id, shown.field, '' AS address, NULL::int AS by, r.community_id AS community,
    r.published_at AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM community_report r
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses mod log
-- columns: reason
SELECT ml.id, shown.field, ml.kind::text AS address, NULL::int AS by, ml.target_community_id AS community,
    ml.published_at AS at, true AS local, false AS removed, false AS deleted
FROM modlog ml
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses record remote_image
-- Remote pictures that Lemmy has fetched or may proxy, by their whole address.
-- columns: link==
SELECT 0 AS id, shown.field, ri.link AS address, NULL::int AS by, NULL::int AS community,
    ri.published_at AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM remote_image ri
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses record image_details
-- Sizes of pictures, by their whole address.
-- columns: link==
SELECT 0 AS id, shown.field, d.link AS address, NULL::int AS by, NULL::int AS community,
    NULL::timestamptz AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM image_details d
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses record blurhash
-- A blurred rendition that outlives the picture.
-- columns: link==
SELECT 0 AS id, 'blurhash' AS field, d.link AS address, NULL::int AS by, NULL::int AS community,
    NULL::timestamptz AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM image_details d
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE d.blurhash IS NOT NULL AND ({found}) AND {shows}
ORDER BY id, address, shown.field;
