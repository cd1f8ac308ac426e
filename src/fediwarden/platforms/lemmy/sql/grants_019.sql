-- What the role of a trace may read in the database of Lemmy 0.19: columns, never whole tables, and no secret among them.

-- name: grants
GRANT SELECT (id, domain) ON instance TO %(role)s;
GRANT SELECT (id, name, display_name, actor_id, local, avatar, banner, bio, published, deleted, instance_id, banned, ban_expires) ON person TO %(role)s;
GRANT SELECT (id, person_id, email, admin) ON local_user TO %(role)s;
GRANT SELECT (id, name, actor_id, local, icon, banner, description, removed, deleted, published, instance_id) ON community TO %(role)s;
GRANT SELECT (id, url, thumbnail_url, embed_video_url, body, ap_id, local, removed, deleted, published, creator_id, community_id) ON post TO %(role)s;
GRANT SELECT (id, content, ap_id, local, removed, deleted, published, creator_id, post_id) ON comment TO %(role)s;
GRANT SELECT (pictrs_alias, published, local_user_id) ON local_image TO %(role)s;
GRANT SELECT (user_id, published, ip, user_agent) ON login_token TO %(role)s;
GRANT SELECT (id, icon, banner, sidebar, actor_id, published) ON site TO %(role)s;
GRANT SELECT (id, image_url, published) ON custom_emoji TO %(role)s;
GRANT SELECT (id, content, published) ON tagline TO %(role)s;
GRANT SELECT (id, original_post_url, original_post_body, published) ON post_report TO %(role)s;
GRANT SELECT (id, original_comment_text, published) ON comment_report TO %(role)s;

-- name: private messages
-- Only where the jurisdiction profile lets private messages be scanned.
GRANT SELECT (id, content, ap_id, local, removed, deleted, published, creator_id) ON private_message TO %(role)s;
GRANT SELECT (id, original_pm_text, published) ON private_message_report TO %(role)s;
