package router

// The constant phrases of Route.Why that this package uses; for logs, SHOW ROUTES and explain.
const (
	whyEmpty     = "empty query"
	whySetting   = "session setting" // only settings of the session: any node will do
	whySelect    = "select"
	whyCopyOut   = "copy to"
	whyExplain   = "explain"
	whyCursor    = "cursor"
	whyReadOnly  = "read only transaction"
	whyTxControl = "transaction control"

	whyBegin     = "begin"      // a transaction that may write
	whyReadWrite = "read write" // the transaction's mode says so
	whySnapshot  = "snapshot"   // an exported snapshot exists on one node

	whyReading     = "changes how the rest is read"
	whyUnreadable  = "cannot be read as SQL"
	whyTooDeep     = "nested too deeply"
	whyManyCTEs    = "too many CTEs"
	whyLearned     = "learned write"
	whyWrite       = "write"           // INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY FROM
	whyWriteInWith = "write in with"   // … inside a query
	whyForUpdate   = "for update"      // row locks
	whySelectInto  = "select into"     //
	whyDDL         = "ddl"             // CREATE, ALTER, DROP …
	whyMaintain    = "maintenance"     // VACUUM, ANALYZE, REINDEX …
	whyStatement   = "other statement" // all else
	whySession     = "session state"   // what pins the session
	whyCall        = "call"
	whyExecute     = "execute"

	whyUnknownFunction  = "unknown function"
	whyUnknownRelation  = "unknown relation"
	whyVolatile         = "volatile function"
	whyVolatileOperator = "volatile operator"
	whyVolatileCast     = "volatile cast"
	whyVolatileType     = "volatile type"
	whyOutside          = "function acts outside"
	whyLock             = "advisory lock"
	whySetConfig        = "set_config"
	whyLocalFunction    = "node-local function"
	whyLocalSetting     = "node-local setting"
	whyLocalRelation    = "node-local relation"
	whyTemporary        = "temporary relation"
	whySequence         = "sequence"
	whyUnlogged         = "unlogged table"
	whyForeign          = "foreign table"
	whyWritingView      = "view that may write"
)
