-- What a trace asks the database of Lemmy 0.19. Every column named here, and no other one, is granted by grants_019.sql.
-- `like` are patterns without regard to case that an index may answer, `exact` a regular expression with the borders that LIKE cannot say, `equal` whole addresses.
--
-- A search (`uses ...`) names the columns that may show a picture, and is asked for several of them or for one: "=" says that an index
-- answers whole addresses, "==" that nothing else is asked, "~" that a trigram index answers LIKE. `owners` are those behind which further
-- owners of the picture may stand. {m.removed|false} is false where the version has no such column.

-- name: uploads
-- Who uploaded it; nobody is known for a preview that Lemmy made.
SELECT li.pictrs_alias AS alias, li.published AS at, lu.person_id AS person, NULL::int AS thumbnail_of
FROM local_image li LEFT JOIN local_user lu ON lu.id = li.local_user_id
WHERE li.pictrs_alias = ANY (%(aliases)s) ORDER BY li.pictrs_alias;

-- name: other_uploads
SELECT li.pictrs_alias AS alias, li.published AS at, lu.person_id AS person, NULL::int AS thumbnail_of
FROM local_image li JOIN local_user lu ON lu.id = li.local_user_id
WHERE lu.person_id = ANY (%(persons)s) AND li.pictrs_alias <> ALL (%(aliases)s)
ORDER BY li.published DESC, li.pictrs_alias LIMIT %(limit)s;

-- name: aliases
-- Every picture that Lemmy took in, page by page.
SELECT pictrs_alias AS alias FROM local_image WHERE pictrs_alias > %(after)s ORDER BY pictrs_alias LIMIT %(limit)s;

-- name: persons
SELECT p.id, p.name, p.actor_id AS address, p.local, i.domain, p.display_name, p.published AS created, p.deleted,
    p.banned AND (p.ban_expires IS NULL OR p.ban_expires > now()) AS banned,
    lu.admin, lu.id AS local_user, lu.email
FROM person p LEFT JOIN instance i ON i.id = p.instance_id LEFT JOIN local_user lu ON lu.person_id = p.id
WHERE p.id = ANY (%(persons)s) ORDER BY p.id;

-- name: sessions
-- The address of a login, not of an upload. The token beside it is the session itself, and is never asked for.
SELECT lu.person_id AS person, lt.published AS started, lt.ip, lt.user_agent
FROM login_token lt JOIN local_user lu ON lu.id = lt.user_id
WHERE lu.person_id = ANY (%(persons)s) ORDER BY lu.person_id, lt.published;

-- name: communities
SELECT co.id, co.name, co.actor_id AS address, i.domain
FROM community co LEFT JOIN instance i ON i.id = co.instance_id WHERE co.id = ANY (%(communities)s) ORDER BY co.id;

-- name: domain
-- This server's own, and the address of its first local account: the one lacks the port that the other has.
SELECT i.domain, p.actor_id AS address FROM local_user lu JOIN person p ON p.id = lu.person_id JOIN instance i ON i.id = p.instance_id ORDER BY lu.id LIMIT 1;

-- name: pairs
-- A picture's post and its preview are other pictures that show the same.
SELECT po.id, po.url, po.thumbnail_url FROM post po WHERE po.id = ANY (%(posts)s) ORDER BY po.id;

-- name: uses post
-- columns: url= thumbnail_url embed_video_url name~ body~ alt_text~ embed_title embed_description
-- owners: url thumbnail_url body
SELECT po.id, shown.field, po.ap_id AS address, po.creator_id AS by, po.community_id AS community,
    po.published AS at, po.local AS local, po.removed AS removed, po.deleted AS deleted
FROM post po
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses comment
-- columns: content~
-- owners: content
SELECT c.id, shown.field, c.ap_id AS address, c.creator_id AS by, po.community_id AS community,
    c.published AS at, c.local AS local, c.removed AS removed, c.deleted AS deleted
FROM comment c JOIN post po ON po.id = c.post_id
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses private message
-- columns: content
SELECT m.id, shown.field, m.ap_id AS address, m.creator_id AS by, NULL::int AS community,
    m.published AS at, m.local AS local, {m.removed|false} AS removed, m.deleted AS deleted
FROM private_message m
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses profile
-- columns: avatar banner bio display_name~
-- owners: avatar banner bio
SELECT p.id, shown.field, p.actor_id AS address, p.id AS by, NULL::int AS community,
    p.published AS at, p.local AS local, false AS removed, p.deleted AS deleted
FROM person p
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses community
-- columns: icon banner title~ description
SELECT co.id, shown.field, co.actor_id AS address, NULL::int AS by, co.id AS community,
    co.published AS at, co.local AS local, co.removed AS removed, co.deleted AS deleted
FROM community co
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses site
-- columns: icon banner sidebar description content_warning
SELECT s.id, shown.field, s.actor_id AS address, NULL::int AS by, NULL::int AS community,
    s.published AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM site s
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses site local
-- What only this server keeps about itself.
-- columns: application_question legal_information
SELECT ls.id, shown.field, '' AS address, NULL::int AS by, NULL::int AS community,
    ls.published AS at, true AS local, false AS removed, false AS deleted
FROM local_site ls
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses application
-- columns: answer deny_reason
SELECT ra.id, shown.field, '' AS address, lu.person_id AS by, NULL::int AS community,
    ra.published AS at, true AS local, false AS removed, false AS deleted
FROM registration_application ra LEFT JOIN local_user lu ON lu.id = ra.local_user_id
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses emoji
-- columns: image_url= shortcode alt_text category
SELECT e.id, shown.field, e.image_url AS address, NULL::int AS by, NULL::int AS community,
    e.published AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM custom_emoji e
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses tagline
-- columns: content
SELECT t.id, shown.field, '' AS address, NULL::int AS by, NULL::int AS community,
    t.published AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM tagline t
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses report of a post
-- columns: original_post_name original_post_url original_post_body reason
SELECT r.id, shown.field, '' AS address, NULL::int AS by, NULL::int AS community,
    r.published AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM post_report r
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses report of a comment
-- columns: original_comment_text reason
SELECT r.id, shown.field, '' AS address, NULL::int AS by, NULL::int AS community,
    r.published AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM comment_report r
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses report of a private message
-- columns: original_pm_text reason
SELECT r.id, shown.field, '' AS address, NULL::int AS by, NULL::int AS community,
    r.published AS at, NULL::boolean AS local, false AS removed, false AS deleted
FROM private_message_report r
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses mod log mod_ban
-- columns: reason
SELECT ml.id, shown.field, 'mod_ban' AS address, NULL::int AS by, NULL::int AS community,
    ml.when_ AS at, true AS local, false AS removed, false AS deleted
FROM mod_ban ml
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses mod log mod_ban_from_community
-- columns: reason
SELECT ml.id, shown.field, 'mod_ban_from_community' AS address, NULL::int AS by, NULL::int AS community,
    ml.when_ AS at, true AS local, false AS removed, false AS deleted
FROM mod_ban_from_community ml
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses mod log mod_hide_community
-- columns: reason
SELECT ml.id, shown.field, 'mod_hide_community' AS address, NULL::int AS by, NULL::int AS community,
    ml.when_ AS at, true AS local, false AS removed, false AS deleted
FROM mod_hide_community ml
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses mod log mod_remove_comment
-- columns: reason
SELECT ml.id, shown.field, 'mod_remove_comment' AS address, NULL::int AS by, NULL::int AS community,
    ml.when_ AS at, true AS local, false AS removed, false AS deleted
FROM mod_remove_comment ml
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses mod log mod_remove_community
-- columns: reason
SELECT ml.id, shown.field, 'mod_remove_community' AS address, NULL::int AS by, NULL::int AS community,
    ml.when_ AS at, true AS local, false AS removed, false AS deleted
FROM mod_remove_community ml
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses mod log mod_remove_post
-- columns: reason
SELECT ml.id, shown.field, 'mod_remove_post' AS address, NULL::int AS by, NULL::int AS community,
    ml.when_ AS at, true AS local, false AS removed, false AS deleted
FROM mod_remove_post ml
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses mod log admin_purge_comment
-- columns: reason
SELECT ml.id, shown.field, 'admin_purge_comment' AS address, NULL::int AS by, NULL::int AS community,
    ml.when_ AS at, true AS local, false AS removed, false AS deleted
FROM admin_purge_comment ml
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses mod log admin_purge_community
-- columns: reason
SELECT ml.id, shown.field, 'admin_purge_community' AS address, NULL::int AS by, NULL::int AS community,
    ml.when_ AS at, true AS local, false AS removed, false AS deleted
FROM admin_purge_community ml
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses mod log admin_purge_person
-- columns: reason
SELECT ml.id, shown.field, 'admin_purge_person' AS address, NULL::int AS by, NULL::int AS community,
    ml.when_ AS at, true AS local, false AS removed, false AS deleted
FROM admin_purge_person ml
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses mod log admin_purge_post
-- columns: reason
SELECT ml.id, shown.field, 'admin_purge_post' AS address, NULL::int AS by, NULL::int AS community,
    ml.when_ AS at, true AS local, false AS removed, false AS deleted
FROM admin_purge_post ml
CROSS JOIN LATERAL (VALUES {columns}) AS shown (field, text)
WHERE ({found}) AND {shows}
ORDER BY id, address, shown.field;

-- name: uses record remote_image
-- Remote pictures that Lemmy has fetched or may proxy, by their whole address.
-- columns: link==
SELECT 0 AS id, shown.field, ri.link AS address, NULL::int AS by, NULL::int AS community,
    ri.published AS at, NULL::boolean AS local, false AS removed, false AS deleted
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
