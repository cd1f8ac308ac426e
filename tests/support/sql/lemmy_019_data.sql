-- A small Lemmy 0.19: alice (uploaded), carol (posted a copy), bob of another server; ones that look alike and are not meant.
INSERT INTO instance (id, domain) VALUES (1, 'lemmy.example'), (2, 'remote.example');
INSERT INTO person (id, name, display_name, public_key, private_key, instance_id, local, actor_id, avatar, bio, banned, ban_expires) VALUES
 (101, 'alice', 'Alice A.', 'pk', 'SECRET-key', 1, true, 'https://lemmy.example/u/alice', 'https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000003.png', NULL, false, NULL),
 (102, 'bob', NULL, 'pk', NULL, 2, false, 'https://remote.example/u/bob', NULL, 'see ![](https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg)', true, '2020-01-01'),
 (103, 'carol', NULL, 'pk', 'SECRET-key', 1, true, 'https://lemmy.example/u/carol', NULL, NULL, true, NULL),
 (104, 'dave', NULL, 'pk', 'SECRET-key', 1, true, 'https://lemmy.example/u/dave', NULL, NULL, false, NULL);
INSERT INTO local_user (id, person_id, password_encrypted, email, admin) VALUES
 (201, 101, 'SECRET-password', 'alice@example.org', false), (203, 103, 'SECRET-password', 'carol@example.org', false), (204, 104, 'SECRET-password', NULL, true);
INSERT INTO community (id, name, title, public_key, private_key, instance_id, actor_id, icon, description) VALUES
 (301, 'pics', 'Pics', 'pk', 'SECRET-key', 1, 'https://lemmy.example/c/pics', 'https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg?format=webp', NULL),
 (302, 'other', 'Other', 'pk', 'SECRET-key', 2, 'https://remote.example/c/other', NULL, 'nothing here');
INSERT INTO local_image (local_user_id, pictrs_alias, pictrs_delete_token, published) VALUES
 (201, 'aaaaaaaa-0000-4000-8000-000000000001.jpeg', 'SECRET-delete', '2024-05-01T10:00:00Z'),
 (201, 'aaaaaaaa-0000-4000-8000-000000000003.png', 'SECRET-delete', '2024-05-02T10:00:00Z'),
 (NULL, 'aaaaaaaa-0000-4000-8000-000000000002.webp', 'SECRET-delete', '2024-05-03T10:00:00Z'),
 (203, 'a_b%c.png', 'SECRET-delete', '2024-05-04T10:00:00Z'), (204, 'aXbYc.png', 'SECRET-delete', '2024-05-05T10:00:00Z');
INSERT INTO remote_image (link) VALUES ('https://img.example/x y.png?a=1&b=2');
INSERT INTO post (id, name, url, body, creator_id, community_id, ap_id, local, removed, thumbnail_url) VALUES
 (401, 'a link', 'https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg', NULL, 101, 301, 'https://lemmy.example/post/401', true, false, NULL),
 (402, 'a preview', 'https://news.example/a', NULL, 102, 301, 'https://remote.example/post/9', false, false, 'https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000002.webp'),
 (403, 'a body', NULL, 'hi ![](https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg)', 103, 301, 'https://lemmy.example/post/403', true, true, NULL),
 (404, 'proxied', 'https://news.example/b', NULL, 102, 302, 'https://remote.example/post/10', false, false, 'https://lemmy.example/api/v3/image_proxy?url=https%3A%2F%2Fimg.example%2Fx%20y.png%3Fa%3D1%26b%3D2'),
 (405, 'proxied, another', 'https://news.example/c', NULL, 104, 302, 'https://lemmy.example/post/405', true, false, 'https://lemmy.example/api/v3/image_proxy?url=https%3A%2F%2Fimg.example%2Fx%20y.png%3Fa%3D12'),
 (406, 'signs', NULL, '![](https://lemmy.example/pictrs/image/a_b%c.png "title")', 103, 301, 'https://lemmy.example/post/406', true, false, NULL),
 (407, 'no signs', NULL, '![](https://lemmy.example/pictrs/image/aXbYc.png)', 104, 301, 'https://lemmy.example/post/407', true, false, NULL),
 (408, 'longer', 'https://lemmy.example/pictrs/image/zaaaaaaaa-0000-4000-8000-000000000001.jpeg', NULL, 104, 301, 'https://lemmy.example/post/408', true, false, NULL),
 (409, 'raw', 'https://img.example/x y.png?a=1&b=2', NULL, 102, 302, 'https://remote.example/post/11', false, false, NULL);
INSERT INTO comment (id, creator_id, post_id, content, ap_id, local, path) VALUES
 (501, 101, 402, '![](https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg)', 'https://lemmy.example/comment/501', true, '0.501'),
 (502, 104, 402, 'no picture', 'https://lemmy.example/comment/502', true, '0.502');
INSERT INTO private_message (id, creator_id, recipient_id, content, ap_id, local) VALUES
 (601, 104, 103, '![](https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg)', 'https://lemmy.example/private_message/601', true);
INSERT INTO login_token (token, user_id, published, ip, user_agent) VALUES
 ('SECRET-jwt-a1', 201, '2024-04-01T00:00:00Z', '203.0.113.7', 'Mozilla/5.0 test'), ('SECRET-jwt-a2', 201, '2024-04-02T00:00:00Z', '2001:db8::7', 'app'),
 ('SECRET-jwt-c1', 203, '2024-04-03T00:00:00Z', '198.51.100.9', NULL), ('SECRET-jwt-d1', 204, '2024-04-04T00:00:00Z', '198.51.100.77', NULL);
INSERT INTO site (id, name, icon, sidebar, actor_id, instance_id) VALUES (1, 'test', 'https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg', NULL, 'https://lemmy.example/', 1);
INSERT INTO custom_emoji (id, shortcode, image_url, alt_text, category) VALUES (701, 'x', 'https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg', '', '');
INSERT INTO tagline (id, content) VALUES (801, '![](https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg)');
INSERT INTO post_report (id, creator_id, post_id, original_post_name, original_post_url, reason) VALUES
 (901, 104, 401, 'a link', 'https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg', 'bad');
INSERT INTO comment_report (id, creator_id, comment_id, original_comment_text, reason) VALUES
 (902, 104, 501, '![](https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg)', 'bad');
INSERT INTO private_message_report (id, creator_id, private_message_id, original_pm_text, reason) VALUES
 (903, 103, 601, '![](https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg)', 'bad');
