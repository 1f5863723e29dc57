-- The id of the data folder that the database belongs to; the folder has it in a file, too.
CREATE TABLE data_folder (
    id          BIGINT PRIMARY KEY CHECK (id = 1),
    folder_id   TEXT NOT NULL
);
INSERT INTO data_folder (id, folder_id) VALUES (1, replace(gen_random_uuid()::text, '-', ''));
