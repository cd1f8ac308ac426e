-- The tables of Lemmy 0.19.4 to 0.19.20 that a trace reads, and some that it must not: names, types and keys as Lemmy has them.
CREATE TABLE instance (id serial PRIMARY KEY, domain varchar(255) NOT NULL UNIQUE);
CREATE TABLE person (id serial PRIMARY KEY, name varchar(255) NOT NULL, display_name varchar(255), avatar text, banned boolean NOT NULL DEFAULT false,
  published timestamptz NOT NULL DEFAULT now(), updated timestamptz, actor_id varchar(255) NOT NULL, bio text, local boolean NOT NULL DEFAULT true,
  public_key text NOT NULL, private_key text, banner text, deleted boolean NOT NULL DEFAULT false, matrix_user_id text, ban_expires timestamptz,
  instance_id int NOT NULL REFERENCES instance ON DELETE CASCADE);
CREATE TABLE local_user (id serial PRIMARY KEY, person_id int NOT NULL UNIQUE REFERENCES person ON DELETE CASCADE, password_encrypted text NOT NULL,
  email text, admin boolean NOT NULL DEFAULT false, accepted_application boolean NOT NULL DEFAULT false);
CREATE TABLE community (id serial PRIMARY KEY, name varchar(255) NOT NULL, title varchar(255) NOT NULL, description text, removed boolean NOT NULL DEFAULT false,
  published timestamptz NOT NULL DEFAULT now(), deleted boolean NOT NULL DEFAULT false, nsfw boolean NOT NULL DEFAULT false, actor_id varchar(255) NOT NULL,
  local boolean NOT NULL DEFAULT true, public_key text NOT NULL, private_key text, icon text, banner text, instance_id int NOT NULL REFERENCES instance ON DELETE CASCADE);
CREATE TABLE post (id serial PRIMARY KEY, name varchar(200) NOT NULL, url varchar(2000), body text, creator_id int NOT NULL REFERENCES person ON DELETE CASCADE,
  community_id int NOT NULL REFERENCES community ON DELETE CASCADE, removed boolean NOT NULL DEFAULT false, published timestamptz NOT NULL DEFAULT now(),
  updated timestamptz, deleted boolean NOT NULL DEFAULT false, nsfw boolean NOT NULL DEFAULT false, thumbnail_url text, ap_id varchar(255) NOT NULL UNIQUE,
  local boolean NOT NULL DEFAULT true, embed_video_url text, url_content_type text, alt_text text);
CREATE TABLE comment (id serial PRIMARY KEY, creator_id int NOT NULL REFERENCES person ON DELETE CASCADE, post_id int NOT NULL REFERENCES post ON DELETE CASCADE,
  content text NOT NULL, removed boolean NOT NULL DEFAULT false, published timestamptz NOT NULL DEFAULT now(), updated timestamptz,
  deleted boolean NOT NULL DEFAULT false, ap_id varchar(255) NOT NULL UNIQUE, local boolean NOT NULL DEFAULT true, path text NOT NULL DEFAULT '0'); -- path is ltree upstream
CREATE TABLE private_message (id serial PRIMARY KEY, creator_id int NOT NULL REFERENCES person ON DELETE CASCADE, recipient_id int NOT NULL REFERENCES person ON DELETE CASCADE,
  content text NOT NULL, deleted boolean NOT NULL DEFAULT false, read boolean NOT NULL DEFAULT false, published timestamptz NOT NULL DEFAULT now(), updated timestamptz,
  ap_id varchar(255) NOT NULL UNIQUE, local boolean NOT NULL DEFAULT true, removed boolean NOT NULL DEFAULT false);
CREATE TABLE local_image (local_user_id int REFERENCES local_user ON DELETE CASCADE, pictrs_alias text PRIMARY KEY, pictrs_delete_token text NOT NULL,
  published timestamptz NOT NULL DEFAULT now());
CREATE TABLE remote_image (link text PRIMARY KEY, published timestamptz NOT NULL DEFAULT now());
CREATE TABLE image_details (link text PRIMARY KEY, width int NOT NULL, height int NOT NULL, content_type text NOT NULL);
CREATE TABLE login_token (token text PRIMARY KEY, user_id int NOT NULL REFERENCES local_user ON DELETE CASCADE, published timestamptz NOT NULL DEFAULT now(), ip text, user_agent text);
CREATE TABLE site (id serial PRIMARY KEY, name varchar(20) NOT NULL, sidebar text, published timestamptz NOT NULL DEFAULT now(), icon text, banner text,
  actor_id varchar(255), instance_id int NOT NULL REFERENCES instance);
CREATE TABLE custom_emoji (id serial PRIMARY KEY, local_site_id int NOT NULL DEFAULT 1, shortcode varchar(128) NOT NULL, image_url text NOT NULL UNIQUE, alt_text text NOT NULL,
  category text NOT NULL, published timestamptz NOT NULL DEFAULT now());
CREATE TABLE tagline (id serial PRIMARY KEY, local_site_id int NOT NULL DEFAULT 1, content text NOT NULL, published timestamptz NOT NULL DEFAULT now());
CREATE TABLE registration_application (id serial PRIMARY KEY, local_user_id int NOT NULL UNIQUE REFERENCES local_user ON DELETE CASCADE, answer text NOT NULL,
  published timestamptz NOT NULL DEFAULT now());
CREATE TABLE post_report (id serial PRIMARY KEY, creator_id int NOT NULL REFERENCES person ON DELETE CASCADE, post_id int NOT NULL REFERENCES post ON DELETE CASCADE,
  original_post_name varchar(200) NOT NULL, original_post_url text, original_post_body text, reason text NOT NULL, resolved boolean NOT NULL DEFAULT false, published timestamptz NOT NULL DEFAULT now());
CREATE TABLE comment_report (id serial PRIMARY KEY, creator_id int NOT NULL REFERENCES person ON DELETE CASCADE, comment_id int NOT NULL REFERENCES comment ON DELETE CASCADE,
  original_comment_text text NOT NULL, reason text NOT NULL, resolved boolean NOT NULL DEFAULT false, published timestamptz NOT NULL DEFAULT now());
CREATE TABLE private_message_report (id serial PRIMARY KEY, creator_id int NOT NULL REFERENCES person ON DELETE CASCADE,
  private_message_id int NOT NULL REFERENCES private_message ON DELETE CASCADE, original_pm_text text NOT NULL, reason text NOT NULL, resolved boolean NOT NULL DEFAULT false,
  published timestamptz NOT NULL DEFAULT now());
CREATE TABLE secret (id serial PRIMARY KEY, jwt_secret varchar NOT NULL);
INSERT INTO secret (jwt_secret) VALUES ('SECRET-jwt');
CREATE EXTENSION pg_trgm;
CREATE INDEX idx_comment_content_trigram ON comment USING gin (content gin_trgm_ops);
-- The other columns of text that Lemmy has, so that a search through all of them can be held against a trace. Enumerations are text here.
CREATE TABLE admin_purge_comment (id serial PRIMARY KEY, admin_person_id int NOT NULL, post_id int NOT NULL, reason text, when_ timestamptz NOT NULL DEFAULT now());
CREATE TABLE admin_purge_community (id serial PRIMARY KEY, admin_person_id int NOT NULL, reason text, when_ timestamptz NOT NULL DEFAULT now());
CREATE TABLE admin_purge_person (id serial PRIMARY KEY, admin_person_id int NOT NULL, reason text, when_ timestamptz NOT NULL DEFAULT now());
CREATE TABLE admin_purge_post (id serial PRIMARY KEY, admin_person_id int NOT NULL, community_id int NOT NULL, reason text, when_ timestamptz NOT NULL DEFAULT now());
CREATE TABLE captcha_answer (uuid uuid NOT NULL, answer text NOT NULL DEFAULT '', published timestamptz NOT NULL DEFAULT now());
ALTER TABLE community ADD followers_url varchar, ADD inbox_url varchar NOT NULL DEFAULT '', ADD shared_inbox_url varchar, ADD moderators_url varchar, ADD featured_url varchar;
CREATE TABLE custom_emoji_keyword (custom_emoji_id int NOT NULL, keyword varchar NOT NULL DEFAULT '');
CREATE TABLE email_verification (id serial PRIMARY KEY, local_user_id int NOT NULL, email text NOT NULL DEFAULT '', verification_token text NOT NULL DEFAULT '', published timestamptz NOT NULL DEFAULT now());
ALTER TABLE instance ADD software varchar, ADD version varchar;
CREATE TABLE language (id serial PRIMARY KEY, code varchar NOT NULL DEFAULT '', name text NOT NULL DEFAULT '');
CREATE TABLE local_site (id serial PRIMARY KEY, site_id int NOT NULL DEFAULT 1, application_question text, default_theme text NOT NULL DEFAULT '', default_post_listing_type text NOT NULL DEFAULT '', legal_information text, slur_filter_regex text, captcha_difficulty varchar NOT NULL DEFAULT '', published timestamptz NOT NULL DEFAULT now(), registration_mode text NOT NULL DEFAULT '', default_post_listing_mode text NOT NULL DEFAULT '', default_sort_type text NOT NULL DEFAULT '');
CREATE TABLE local_site_url_blocklist (id serial PRIMARY KEY, url text NOT NULL DEFAULT '', published timestamptz NOT NULL DEFAULT now());
ALTER TABLE local_user ADD theme text NOT NULL DEFAULT '', ADD default_sort_type text NOT NULL DEFAULT '', ADD default_listing_type text NOT NULL DEFAULT '', ADD interface_language varchar NOT NULL DEFAULT '', ADD totp_2fa_secret text, ADD post_listing_mode text NOT NULL DEFAULT '';
CREATE TABLE mod_ban (id serial PRIMARY KEY, mod_person_id int NOT NULL, reason text, when_ timestamptz NOT NULL DEFAULT now());
CREATE TABLE mod_ban_from_community (id serial PRIMARY KEY, mod_person_id int NOT NULL, community_id int NOT NULL, reason text, when_ timestamptz NOT NULL DEFAULT now());
CREATE TABLE mod_hide_community (id serial PRIMARY KEY, community_id int NOT NULL, mod_person_id int NOT NULL, when_ timestamptz NOT NULL DEFAULT now(), reason text);
CREATE TABLE mod_remove_comment (id serial PRIMARY KEY, mod_person_id int NOT NULL, reason text, when_ timestamptz NOT NULL DEFAULT now());
CREATE TABLE mod_remove_community (id serial PRIMARY KEY, mod_person_id int NOT NULL, community_id int NOT NULL, reason text, when_ timestamptz NOT NULL DEFAULT now());
CREATE TABLE mod_remove_post (id serial PRIMARY KEY, mod_person_id int NOT NULL, post_id int NOT NULL, reason text, when_ timestamptz NOT NULL DEFAULT now());
CREATE TABLE password_reset_request (id serial PRIMARY KEY, token text NOT NULL DEFAULT '', published timestamptz NOT NULL DEFAULT now(), local_user_id int NOT NULL);
ALTER TABLE person ADD inbox_url varchar NOT NULL DEFAULT '', ADD shared_inbox_url varchar;
ALTER TABLE post ADD embed_title text, ADD embed_description text;
CREATE TABLE received_activity (ap_id text NOT NULL DEFAULT '', published timestamptz NOT NULL DEFAULT now());
ALTER TABLE registration_application ADD deny_reason text;
CREATE TABLE sent_activity (id serial PRIMARY KEY, ap_id text NOT NULL DEFAULT '', data json NOT NULL DEFAULT '{}', published timestamptz NOT NULL DEFAULT now(), send_inboxes text[] NOT NULL DEFAULT '{}', actor_type text NOT NULL DEFAULT '', actor_apub_id text);
ALTER TABLE site ADD description varchar, ADD inbox_url varchar NOT NULL DEFAULT '', ADD private_key text, ADD public_key text NOT NULL DEFAULT '', ADD content_warning text;
CREATE INDEX idx_post_url ON post (url);
CREATE INDEX idx_post_trigram ON post USING gin (name gin_trgm_ops, body gin_trgm_ops, alt_text gin_trgm_ops);
CREATE INDEX idx_person_trigram ON person USING gin (name gin_trgm_ops, display_name gin_trgm_ops);
CREATE INDEX idx_community_trigram ON community USING gin (name gin_trgm_ops, title gin_trgm_ops);
