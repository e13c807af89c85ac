module example.com/hop

go 1.25
