-- What the role of a trace may read in the database of Lemmy 0.19: columns, never whole tables, and no secret among them.

-- name: grants
GRANT SELECT (id, domain) ON instance TO %(role)s;
GRANT SELECT (id, name, display_name, actor_id, local, avatar, banner, bio, published, deleted, instance_id, banned, ban_expires) ON person TO %(role)s;
GRANT SELECT (id, person_id, email, admin) ON local_user TO %(role)s;
GRANT SELECT (id, name, title, actor_id, local, icon, banner, description, removed, deleted, published, instance_id) ON community TO %(role)s;
GRANT SELECT (id, name, url, thumbnail_url, embed_video_url, embed_title, embed_description, body, ap_id, local, removed, deleted, published, creator_id, community_id) ON post TO %(role)s;
GRANT SELECT (id, content, ap_id, local, removed, deleted, published, creator_id, post_id) ON comment TO %(role)s;
GRANT SELECT (pictrs_alias, published, local_user_id) ON local_image TO %(role)s;
GRANT SELECT (user_id, published, ip, user_agent) ON login_token TO %(role)s;
GRANT SELECT (id, icon, banner, sidebar, description, actor_id, published) ON site TO %(role)s;
GRANT SELECT (id, application_question, legal_information, published) ON local_site TO %(role)s;
GRANT SELECT (id, local_user_id, answer, deny_reason, published) ON registration_application TO %(role)s;
GRANT SELECT (id, image_url, shortcode, alt_text, category, published) ON custom_emoji TO %(role)s;
GRANT SELECT (id, content, published) ON tagline TO %(role)s;
GRANT SELECT (id, original_post_name, original_post_url, original_post_body, reason, published) ON post_report TO %(role)s;
GRANT SELECT (id, original_comment_text, reason, published) ON comment_report TO %(role)s;
GRANT SELECT (id, reason, when_) ON mod_ban, mod_ban_from_community, mod_hide_community, mod_remove_comment, mod_remove_community, mod_remove_post TO %(role)s;
GRANT SELECT (id, reason, when_) ON admin_purge_comment, admin_purge_community, admin_purge_person, admin_purge_post TO %(role)s;

-- name: private messages
-- Only where the jurisdiction profile lets private messages be scanned.
GRANT SELECT (id, content, ap_id, local, deleted, published, creator_id) ON private_message TO %(role)s;
GRANT SELECT (id, original_pm_text, reason, published) ON private_message_report TO %(role)s;

-- name: later
GRANT SELECT (alt_text) ON post TO %(role)s;
GRANT SELECT (content_warning) ON site TO %(role)s;
GRANT SELECT (link, published) ON remote_image TO %(role)s;
GRANT SELECT (link) ON image_details TO %(role)s;

-- name: later private messages
GRANT SELECT (removed) ON private_message TO %(role)s;
