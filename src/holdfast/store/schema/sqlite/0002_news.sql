-- What running code tells those who watch. Nothing here is history: rows are deleted as new ones come, and a while
-- after the run's end.
CREATE TABLE news (
    run_no INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    n INTEGER NOT NULL,
    count INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run_no, epoch, n)
);
