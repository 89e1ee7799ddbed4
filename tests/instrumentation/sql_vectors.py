"""The cases that OpenTelemetry publishes for texts and summaries of queries.

Each is a query, what is left of it without its values, and its summary. Where the publication
allows several texts, this is the one that tracekit writes.
https://github.com/open-telemetry/semantic-conventions/tree/main/docs/non-normative/database-test-cases
"""

from __future__ import annotations

from typing import NamedTuple


class Vector(NamedTuple):
    query: str
    text: str
    summary: str
    system: str = "other_sql"


def _plain(query: str, summary: str, system: str = "other_sql") -> Vector:
    """Make a case of a query that has no values in it."""
    return Vector(query, query, summary, system)


MSSQL = "microsoft.sql_server"
_TOO_LONG = "V" + "ecnzotj" * 36

VECTORS = [
    # Values
    Vector("SELECT 12, -12, +12", "SELECT ?, ?, ?", "SELECT"),
    Vector("SELECT 12.34, -12.34, +12.34, .01, -.01", "SELECT ?, ?, ?, ?, ?", "SELECT"),
    Vector("SELECT 12.34e56, -12.34e56, +12.34e56", "SELECT ?, ?, ?", "SELECT"),
    Vector("SELECT 12.34e-56, -12.34e-56, +12.34e-56", "SELECT ?, ?, ?", "SELECT"),
    Vector("SELECT 99+100", "SELECT ??", "SELECT"),
    Vector("SELECT 0xDEADBEEF, 0XdeadBEEF", "SELECT ?, ?", "SELECT"),
    Vector("SELECT 'hello'", "SELECT ?", "SELECT"),
    Vector("SELECT 'My name''s not important'", "SELECT ?", "SELECT"),
    Vector("SELECT 'My name is \n not important'", "SELECT ?", "SELECT"),
    Vector("SELECT { guid '01234567-89ab-cdef-0123-456789abcdef' }", "SELECT { guid ? }", "SELECT"),
    Vector("INSERT INTO T (A) VALUES (123)", "INSERT INTO T (A) VALUES (?)", "INSERT T"),
    Vector("SELECT (123) AS C;", "SELECT (?) AS C;", "SELECT"),
    Vector(
        "CREATE TABLE T (A INT DEFAULT (123));",
        "CREATE TABLE T (A INT DEFAULT (?));",
        "CREATE TABLE T",
    ),
    Vector("SELECT ((123)) AS C;", "SELECT ((?)) AS C;", "SELECT"),
    Vector("SELECT ABS((123));", "SELECT ABS((?));", "SELECT"),
    Vector(
        "SELECT * FROM T WHERE Amount BETWEEN (10) AND (20);",
        "SELECT * FROM T WHERE Amount BETWEEN (?) AND (?);",
        "SELECT T",
    ),
    Vector(
        "SELECT * FROM T WHERE Id = COALESCE((123), 0);",
        "SELECT * FROM T WHERE Id = COALESCE((?), ?);",
        "SELECT T",
    ),
    Vector("SELECT CAST((123) AS INT);", "SELECT CAST((?) AS INT);", "SELECT"),
    Vector(
        "SELECT TOP (10) * FROM Employees",
        "SELECT TOP (?) * FROM Employees",
        "SELECT Employees",
        MSSQL,
    ),
    Vector(
        "SELECT TOP 10 * FROM Employees", "SELECT TOP ? * FROM Employees", "SELECT Employees", MSSQL
    ),
    Vector(
        "INSERT INTO X VALUES(1, 23456, 123.456, 99+100)",
        "INSERT INTO X VALUES(?, ?, ?, ??)",
        "INSERT X",
    ),
    # Names with digits and dots, comments, case
    Vector(
        "SELECT c3po, r2d2 FROM covid19 WHERE n1h1=1234",
        "SELECT c3po, r2d2 FROM covid19 WHERE n1h1=?",
        "SELECT covid19",
    ),
    _plain(
        "SELECT a FROM dbo.Table JOIN dbo.AnotherTable",
        "SELECT dbo.Table dbo.AnotherTable",
    ),
    Vector(
        "SELECT column -- end of line comment\nFROM /* block \n comment */ table",
        "SELECT column \nFROM  table",
        "SELECT table",
    ),
    _plain("SELEcT order_date\nFROM ORders", "SELEcT ORders"),
    _plain("SELECT * FROM SelectedData", "SELECT SelectedData"),
    _plain(f"SELECT * FROM {_TOO_LONG} o, OrderDetails od", "SELECT"),
    # Lists of values
    Vector(
        "SELECT * FROM table WHERE value IN (123, 456, 'abc')",
        "SELECT * FROM table WHERE value IN (?)",
        "SELECT table",
    ),
    *(
        Vector(
            f"SELECT * FROM table WHERE value IN ({values})",
            "SELECT * FROM table WHERE value IN (?)",
            "SELECT table",
        )
        for values in (
            "-123, .456, 'abc', 0.12, 1e10",
            "0xAB, .456, 'abc', 0.12, 1e10",
            "'abc', 0xAB, .456, 0.12, 1e10",
        )
    ),
    Vector(
        "SELECT * FROM table WHERE value IN ('abc', 0xAB, .456,",
        "SELECT * FROM table WHERE value IN (?, ?, ?,",
        "SELECT table",
    ),
    # Several tables, several operations
    Vector(
        "INSERT INTO shipping_details\n(order_id,\naddress)\nSELECT order_id,\naddress\n"
        "FROM   orders\nWHERE  order_id = 1",
        "INSERT INTO shipping_details\n(order_id,\naddress)\nSELECT order_id,\naddress\n"
        "FROM   orders\nWHERE  order_id = ?",
        "INSERT shipping_details SELECT orders",
    ),
    *(
        _plain(
            f"{outer} order_date\nFROM   ({inner} *\nFROM   orders o\nJOIN customers c\n"
            "ON o.customer_id = c.customer_id)",
            f"{outer} {inner} orders customers",
        )
        for outer, inner in (("SELECT", "SELECT"), ("SELEcT", "sELECT"))
    ),
    _plain("SELECT * FROM Orders o CROSS JOIN OrderDetails od", "SELECT Orders OrderDetails"),
    _plain("SELECT * FROM Orders o, OrderDetails od", "SELECT Orders OrderDetails"),
    _plain("SELECT DISTINCT Country FROM Countries", "SELECT Countries"),
    _plain(
        "SELECT DISTINCT o.Id FROM Orders o JOIN Customers c ON o.CustomerId = c.Id",
        "SELECT Orders Customers",
    ),
    _plain(
        "SELECT o.Id, c.Name, SUM(oi.Quantity) FROM Orders o JOIN Customers c "
        "ON o.CustomerId = c.Id JOIN OrderItems oi ON o.Id = oi.OrderId GROUP BY o.Id, c.Name;",
        "SELECT Orders Customers OrderItems",
    ),
    _plain(
        "SELECT DISTINCT Department, COUNT(*) OVER (PARTITION BY Department) AS DeptCount "
        "FROM Employees;",
        "SELECT Employees",
    ),
    _plain(
        "SELECT Id, Name FROM Customers UNION SELECT Id, Name FROM Suppliers ORDER BY Name;",
        "SELECT Customers Suppliers",
    ),
    # Definitions
    Vector(
        "CREATE  TABLE MyTable (\n    ID NOT NULL IDENTITY(1,1) PRIMARY KEY\n)",
        "CREATE  TABLE MyTable (\n    ID NOT NULL IDENTITY(?,?) PRIMARY KEY\n)",
        "CREATE TABLE MyTable",
    ),
    Vector(
        "ALTER  TABLE MyTable ADD Name varchar(255)",
        "ALTER  TABLE MyTable ADD Name varchar(?)",
        "ALTER TABLE MyTable",
    ),
    Vector(
        "ALTER  TABLE MyTable ADD Name varchar(255) 'mypassword' 1234",
        "ALTER  TABLE MyTable ADD Name varchar(?) ? ?",
        "ALTER TABLE MyTable",
    ),
    Vector(
        "ALTER  TABLE MyTable 'mypassword' ADD 123 Name varchar(255)",
        "ALTER  TABLE MyTable ? ADD ? Name varchar(?)",
        "ALTER TABLE MyTable",
    ),
    _plain("DROP  TABLE MyTable", "DROP TABLE MyTable"),
    *(
        _plain(f"{query};", summary)
        for query, summary in (
            (
                "CREATE UNIQUE CLUSTERED INDEX IX_Employee_Email ON Employees (Email)",
                "CREATE INDEX IX_Employee_Email",
            ),
            (
                "CREATE UNIQUE INDEX IX_Employee_Email ON Employees (Email)",
                "CREATE INDEX IX_Employee_Email",
            ),
            (
                "CREATE INDEX IX_Orders_CustomerId ON Orders (CustomerId) "
                "INCLUDE (OrderDate, TotalAmount)",
                "CREATE INDEX IX_Orders_CustomerId",
            ),
            ("ALTER INDEX IX_Employee_Email ON Employees REBUILD", "ALTER INDEX IX_Employee_Email"),
            ("ALTER TABLE Orders RENAME COLUMN OldName TO NewName", "ALTER TABLE Orders"),
            ("ALTER TABLE Orders DROP COLUMN TempColumn", "ALTER TABLE Orders"),
            ("DROP TRIGGER IF EXISTS trg_AfterInsert", "DROP TRIGGER trg_AfterInsert"),
            ("DROP PROCEDURE IF EXISTS RemoveEmployee", "DROP PROCEDURE RemoveEmployee"),
            ("CREATE DATABASE TestDb", "CREATE DATABASE TestDb"),
            ("ALTER DATABASE TestDb MODIFY NAME = NewTestDb", "ALTER DATABASE TestDb"),
            ("DROP DATABASE IF EXISTS TestDb", "DROP DATABASE TestDb"),
            ("CREATE SCHEMA Reporting", "CREATE SCHEMA Reporting"),
            ("ALTER SCHEMA Reporting TRANSFER dbo.OldTable", "ALTER SCHEMA Reporting"),
            ("DROP SCHEMA IF EXISTS Reporting", "DROP SCHEMA Reporting"),
            ("DROP SEQUENCE SalesSeq", "DROP SEQUENCE SalesSeq"),
            ("DROP USER IF EXISTS johndoe", "DROP USER johndoe"),
            ("CREATE ROLE app_admin", "CREATE ROLE app_admin"),
            ("ALTER ROLE app_admin ADD MEMBER johndoe", "ALTER ROLE app_admin"),
            ("DROP ROLE IF EXISTS app_admin", "DROP ROLE app_admin"),
            ("EXEC GetAllEmployees", "EXEC GetAllEmployees"),
            (
                "CREATE PROCEDURE GetUserById @UserId INT AS SELECT * FROM Users "
                "WHERE Id = @UserId",
                "CREATE PROCEDURE GetUserById",
            ),
            (
                "CREATE TRIGGER trg_UpdateTimestamp ON Orders AFTER UPDATE AS BEGIN UPDATE Orders "
                "SET UpdatedAt = GETDATE() WHERE Id IN (SELECT Id FROM inserted); END",
                "CREATE TRIGGER trg_UpdateTimestamp",
            ),
        )
    ),
    _plain("DROP FUNCTION dbo.GetTotal;", "DROP FUNCTION dbo.GetTotal", MSSQL),
    *(
        _plain(
            f"{verb} FUNCTION dbo.GetTotal(@a INT, @b INT) RETURNS INT AS BEGIN "
            f"RETURN @a {sign} @b; END;",
            f"{verb} FUNCTION dbo.GetTotal",
            MSSQL,
        )
        for verb, sign in (("CREATE", "+"), ("ALTER", "*"))
    ),
    Vector(
        "CREATE TABLE IF NOT EXISTS Users (Id INT PRIMARY KEY, Name NVARCHAR(100));",
        "CREATE TABLE IF NOT EXISTS Users (Id INT PRIMARY KEY, Name NVARCHAR(?));",
        "CREATE TABLE Users",
    ),
    *(
        Vector(
            f"{verb} VIEW ActiveUsers AS SELECT * FROM Users WHERE IsActive = 1;",
            f"{verb} VIEW ActiveUsers AS SELECT * FROM Users WHERE IsActive = ?;",
            f"{verb} VIEW ActiveUsers",
        )
        for verb in ("CREATE", "ALTER")
    ),
    Vector(
        "ALTER TABLE Orders ADD COLUMN OrderStatus NVARCHAR(50);",
        "ALTER TABLE Orders ADD COLUMN OrderStatus NVARCHAR(?);",
        "ALTER TABLE Orders",
    ),
    *(
        Vector(
            f"ALTER PROCEDURE {name} @{key} INT, @Email NVARCHAR(100) AS UPDATE {table} "
            f"SET Email = @Email WHERE Id = @{key};",
            f"ALTER PROCEDURE {name} @{key} INT, @Email NVARCHAR(?) AS UPDATE {table} "
            f"SET Email = @Email WHERE Id = @{key};",
            f"ALTER PROCEDURE {name}",
        )
        for name, key, table in (
            ("UpdateUserEmail", "UserId", "Users"),
            ("UpdateEmployeeEmail", "EmployeeId", "Employees"),
        )
    ),
    Vector(
        "ALTER TRIGGER trg_AfterInsert ON Employees AFTER INSERT AS BEGIN INSERT INTO AuditLog "
        "(EmployeeId, Action) SELECT Id, 'INSERT' FROM inserted; END;",
        "ALTER TRIGGER trg_AfterInsert ON Employees AFTER INSERT AS BEGIN INSERT INTO AuditLog "
        "(EmployeeId, Action) SELECT Id, ? FROM inserted; END;",
        "ALTER TRIGGER trg_AfterInsert",
    ),
    Vector(
        "CREATE PROCEDURE AddEmployee @Name NVARCHAR(100), @Email NVARCHAR(100) AS INSERT INTO "
        "Employees (Name, Email) VALUES (@Name, @Email);",
        "CREATE PROCEDURE AddEmployee @Name NVARCHAR(?), @Email NVARCHAR(?) AS INSERT INTO "
        "Employees (Name, Email) VALUES (@Name, @Email);",
        "CREATE PROCEDURE AddEmployee",
    ),
    Vector(
        "CREATE SEQUENCE SalesSeq START WITH 1 INCREMENT BY 1;",
        "CREATE SEQUENCE SalesSeq START WITH ? INCREMENT BY ?;",
        "CREATE SEQUENCE SalesSeq",
    ),
    Vector(
        "ALTER SEQUENCE SalesSeq RESTART WITH 100;",
        "ALTER SEQUENCE SalesSeq RESTART WITH ?;",
        "ALTER SEQUENCE SalesSeq",
    ),
    Vector(
        "CREATE USER johndoe WITH PASSWORD = 'password';",
        "CREATE USER johndoe WITH PASSWORD = ?;",
        "CREATE USER johndoe",
    ),
    Vector(
        "ALTER USER johndoe WITH PASSWORD = 'newpassword';",
        "ALTER USER johndoe WITH PASSWORD = ?;",
        "ALTER USER johndoe",
    ),
    Vector(
        "CREATE TABLE Table (Name VARCHAR(255), Code CHAR(10));",
        "CREATE TABLE Table (Name VARCHAR(?), Code CHAR(?));",
        "CREATE TABLE Table",
    ),
    Vector(
        "CREATE TABLE Table (Payload VARBINARY(16), EventTime DATETIME2(7), Duration TIME(7));",
        "CREATE TABLE Table (Payload VARBINARY(?), EventTime DATETIME2(?), Duration TIME(?));",
        "CREATE TABLE Table",
        MSSQL,
    ),
    # Procedures
    Vector(
        "EXEC sp_rename 'OldTable', 'NewTable';", "EXEC sp_rename ?, ?;", "EXEC sp_rename", MSSQL
    ),
    Vector(
        "EXEC GetEmployeeById @EmployeeId = 42;",
        "EXEC GetEmployeeById @EmployeeId = ?;",
        "EXEC GetEmployeeById",
    ),
    # Published with the summary `UPDATE`, alone of all statements without the table that it is
    # about, which the conventions ask for in words.
    Vector("UPDATE T SET A = (999);", "UPDATE T SET A = (?);", "UPDATE T"),
]
