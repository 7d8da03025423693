package router

// keyword is one of PostgreSQL's key words, as far as the classifier has to know it.
type keyword uint16

// The key words in the four classes of PostgreSQL's grammar: reserved ones name nothing (except
// after AS or a dot), those of the second class may name functions and types but no columns or
// aliases, those of the third columns and aliases but no functions, the others everything.
const (
	kwNone keyword = iota
	kwAll
	kwAnalyse
	kwAnalyze
	kwAnd
	kwAny
	kwArray
	kwAs
	kwAsc
	kwAsymmetric
	kwBoth
	kwCase
	kwCast
	kwCheck
	kwCollate
	kwColumn
	kwConstraint
	kwCreate
	kwCurrentCatalog
	kwCurrentDate
	kwCurrentRole
	kwCurrentTime
	kwCurrentTimestamp
	kwCurrentUser
	kwDefault
	kwDeferrable
	kwDesc
	kwDistinct
	kwDo
	kwElse
	kwEnd
	kwExcept
	kwFalse
	kwFetch
	kwFor
	kwForeign
	kwFrom
	kwGrant
	kwGroup
	kwHaving
	kwIn
	kwInitially
	kwIntersect
	kwInto
	kwLateral
	kwLeading
	kwLimit
	kwLocaltime
	kwLocaltimestamp
	kwNot
	kwNull
	kwOffset
	kwOn
	kwOnly
	kwOr
	kwOrder
	kwPlacing
	kwPrimary
	kwReferences
	kwReturning
	kwSelect
	kwSessionUser
	kwSome
	kwSymmetric
	kwSystemUser
	kwTable
	kwThen
	kwTo
	kwTrailing
	kwTrue
	kwUnion
	kwUnique
	kwUser
	kwUsing
	kwVariadic
	kwWhen
	kwWhere
	kwWindow
	kwWith
	kwAuthorization
	kwBinary
	kwCollation
	kwConcurrently
	kwCross
	kwCurrentSchema
	kwFreeze
	kwFull
	kwIlike
	kwInner
	kwIs
	kwIsnull
	kwJoin
	kwLeft
	kwLike
	kwNatural
	kwNotnull
	kwOuter
	kwOverlaps
	kwRight
	kwSimilar
	kwTablesample
	kwVerbose
	kwBetween
	kwBigint
	kwBit
	kwBoolean
	kwChar
	kwCharacter
	kwCoalesce
	kwDec
	kwDecimal
	kwExists
	kwExtract
	kwFloat
	kwGreatest
	kwGrouping
	kwInout
	kwInt
	kwInteger
	kwInterval
	kwJson
	kwJsonArray
	kwJsonArrayagg
	kwJsonExists
	kwJsonObject
	kwJsonObjectagg
	kwJsonQuery
	kwJsonScalar
	kwJsonSerialize
	kwJsonTable
	kwJsonValue
	kwLeast
	kwMergeAction
	kwNational
	kwNchar
	kwNoneWord
	kwNormalize
	kwNullif
	kwNumeric
	kwOut
	kwOverlay
	kwPosition
	kwPrecision
	kwReal
	kwRow
	kwSetof
	kwSmallint
	kwSubstring
	kwTime
	kwTimestamp
	kwTreat
	kwTrim
	kwValues
	kwVarchar
	kwXmlattributes
	kwXmlconcat
	kwXmlelement
	kwXmlexists
	kwXmlforest
	kwXmlnamespaces
	kwXmlparse
	kwXmlpi
	kwXmlroot
	kwXmlserialize
	kwXmltable
	kwAbort
	kwAbsolute
	kwAlter
	kwAt
	kwAtomic
	kwBegin
	kwBy
	kwCall
	kwChain
	kwCharacteristics
	kwCheckpoint
	kwClose
	kwCluster
	kwColumns
	kwComment
	kwCommit
	kwCommitted
	kwConstraints
	kwCopy
	kwCube
	kwCursor
	kwCycle
	kwDeallocate
	kwDeclare
	kwDelete
	kwDiscard
	kwDrop
	kwEscape
	kwExecute
	kwExplain
	kwFilter
	kwFirst
	kwFunction
	kwGlobal
	kwGroups
	kwHold
	kwImport
	kwInsert
	kwIsolation
	kwKey
	kwLast
	kwLevel
	kwListen
	kwLoad
	kwLocal
	kwLock
	kwMaterialized
	kwMerge
	kwMove
	kwNames
	kwNext
	kwNo
	kwNotify
	kwOf
	kwOperator
	kwOrdinality
	kwOver
	kwPartition
	kwPassing
	kwPlans
	kwPrepare
	kwPrepared
	kwProcedure
	kwProgram
	kwRange
	kwRead
	kwReassign
	kwRecursive
	kwRefresh
	kwReindex
	kwRelease
	kwRepeatable
	kwReplace
	kwReset
	kwRevoke
	kwRole
	kwRollback
	kwRollup
	kwRows
	kwSavepoint
	kwSchema
	kwScroll
	kwSearch
	kwSecurity
	kwSequences
	kwSerializable
	kwSession
	kwSet
	kwSets
	kwShare
	kwShow
	kwSnapshot
	kwStart
	kwStdin
	kwStdout
	kwTemp
	kwTemporary
	kwTies
	kwTransaction
	kwTruncate
	kwUncommitted
	kwUnlisten
	kwUnlogged
	kwUpdate
	kwVacuum
	kwVarying
	kwWithin
	kwWithout
	kwWork
	kwWrite
	kwXml
	kwZone
)

// The last key word of each class.
const (
	kwLastReserved = kwWith
	kwLastFunction = kwVerbose
	kwLastColumn   = kwXmltable
)

// reserved says whether the word can name nothing at all.
func (k keyword) reserved() bool { return k != kwNone && k <= kwLastReserved }

// construct says whether the word before a parenthesis is usually no call of a function.
func (k keyword) construct() bool { return k > kwLastReserved && k <= kwLastColumn }

// alias says whether the word may be an alias that stands without AS in FROM.
func (k keyword) alias() bool { return k == kwNone || k > kwLastFunction }

// keywordOf finds the key word that b, in lower case, is; kwNone for all other words.
func keywordOf(b []byte) keyword {
	switch string(b) {
	case "all":
		return kwAll
	case "analyse":
		return kwAnalyse
	case "analyze":
		return kwAnalyze
	case "and":
		return kwAnd
	case "any":
		return kwAny
	case "array":
		return kwArray
	case "as":
		return kwAs
	case "asc":
		return kwAsc
	case "asymmetric":
		return kwAsymmetric
	case "both":
		return kwBoth
	case "case":
		return kwCase
	case "cast":
		return kwCast
	case "check":
		return kwCheck
	case "collate":
		return kwCollate
	case "column":
		return kwColumn
	case "constraint":
		return kwConstraint
	case "create":
		return kwCreate
	case "current_catalog":
		return kwCurrentCatalog
	case "current_date":
		return kwCurrentDate
	case "current_role":
		return kwCurrentRole
	case "current_time":
		return kwCurrentTime
	case "current_timestamp":
		return kwCurrentTimestamp
	case "current_user":
		return kwCurrentUser
	case "default":
		return kwDefault
	case "deferrable":
		return kwDeferrable
	case "desc":
		return kwDesc
	case "distinct":
		return kwDistinct
	case "do":
		return kwDo
	case "else":
		return kwElse
	case "end":
		return kwEnd
	case "except":
		return kwExcept
	case "false":
		return kwFalse
	case "fetch":
		return kwFetch
	case "for":
		return kwFor
	case "foreign":
		return kwForeign
	case "from":
		return kwFrom
	case "grant":
		return kwGrant
	case "group":
		return kwGroup
	case "having":
		return kwHaving
	case "in":
		return kwIn
	case "initially":
		return kwInitially
	case "intersect":
		return kwIntersect
	case "into":
		return kwInto
	case "lateral":
		return kwLateral
	case "leading":
		return kwLeading
	case "limit":
		return kwLimit
	case "localtime":
		return kwLocaltime
	case "localtimestamp":
		return kwLocaltimestamp
	case "not":
		return kwNot
	case "null":
		return kwNull
	case "offset":
		return kwOffset
	case "on":
		return kwOn
	case "only":
		return kwOnly
	case "or":
		return kwOr
	case "order":
		return kwOrder
	case "placing":
		return kwPlacing
	case "primary":
		return kwPrimary
	case "references":
		return kwReferences
	case "returning":
		return kwReturning
	case "select":
		return kwSelect
	case "session_user":
		return kwSessionUser
	case "some":
		return kwSome
	case "symmetric":
		return kwSymmetric
	case "system_user":
		return kwSystemUser
	case "table":
		return kwTable
	case "then":
		return kwThen
	case "to":
		return kwTo
	case "trailing":
		return kwTrailing
	case "true":
		return kwTrue
	case "union":
		return kwUnion
	case "unique":
		return kwUnique
	case "user":
		return kwUser
	case "using":
		return kwUsing
	case "variadic":
		return kwVariadic
	case "when":
		return kwWhen
	case "where":
		return kwWhere
	case "window":
		return kwWindow
	case "with":
		return kwWith
	case "authorization":
		return kwAuthorization
	case "binary":
		return kwBinary
	case "collation":
		return kwCollation
	case "concurrently":
		return kwConcurrently
	case "cross":
		return kwCross
	case "current_schema":
		return kwCurrentSchema
	case "freeze":
		return kwFreeze
	case "full":
		return kwFull
	case "ilike":
		return kwIlike
	case "inner":
		return kwInner
	case "is":
		return kwIs
	case "isnull":
		return kwIsnull
	case "join":
		return kwJoin
	case "left":
		return kwLeft
	case "like":
		return kwLike
	case "natural":
		return kwNatural
	case "notnull":
		return kwNotnull
	case "outer":
		return kwOuter
	case "overlaps":
		return kwOverlaps
	case "right":
		return kwRight
	case "similar":
		return kwSimilar
	case "tablesample":
		return kwTablesample
	case "verbose":
		return kwVerbose
	case "between":
		return kwBetween
	case "bigint":
		return kwBigint
	case "bit":
		return kwBit
	case "boolean":
		return kwBoolean
	case "char":
		return kwChar
	case "character":
		return kwCharacter
	case "coalesce":
		return kwCoalesce
	case "dec":
		return kwDec
	case "decimal":
		return kwDecimal
	case "exists":
		return kwExists
	case "extract":
		return kwExtract
	case "float":
		return kwFloat
	case "greatest":
		return kwGreatest
	case "grouping":
		return kwGrouping
	case "inout":
		return kwInout
	case "int":
		return kwInt
	case "integer":
		return kwInteger
	case "interval":
		return kwInterval
	case "json":
		return kwJson
	case "json_array":
		return kwJsonArray
	case "json_arrayagg":
		return kwJsonArrayagg
	case "json_exists":
		return kwJsonExists
	case "json_object":
		return kwJsonObject
	case "json_objectagg":
		return kwJsonObjectagg
	case "json_query":
		return kwJsonQuery
	case "json_scalar":
		return kwJsonScalar
	case "json_serialize":
		return kwJsonSerialize
	case "json_table":
		return kwJsonTable
	case "json_value":
		return kwJsonValue
	case "least":
		return kwLeast
	case "merge_action":
		return kwMergeAction
	case "national":
		return kwNational
	case "nchar":
		return kwNchar
	case "none":
		return kwNoneWord
	case "normalize":
		return kwNormalize
	case "nullif":
		return kwNullif
	case "numeric":
		return kwNumeric
	case "out":
		return kwOut
	case "overlay":
		return kwOverlay
	case "position":
		return kwPosition
	case "precision":
		return kwPrecision
	case "real":
		return kwReal
	case "row":
		return kwRow
	case "setof":
		return kwSetof
	case "smallint":
		return kwSmallint
	case "substring":
		return kwSubstring
	case "time":
		return kwTime
	case "timestamp":
		return kwTimestamp
	case "treat":
		return kwTreat
	case "trim":
		return kwTrim
	case "values":
		return kwValues
	case "varchar":
		return kwVarchar
	case "xmlattributes":
		return kwXmlattributes
	case "xmlconcat":
		return kwXmlconcat
	case "xmlelement":
		return kwXmlelement
	case "xmlexists":
		return kwXmlexists
	case "xmlforest":
		return kwXmlforest
	case "xmlnamespaces":
		return kwXmlnamespaces
	case "xmlparse":
		return kwXmlparse
	case "xmlpi":
		return kwXmlpi
	case "xmlroot":
		return kwXmlroot
	case "xmlserialize":
		return kwXmlserialize
	case "xmltable":
		return kwXmltable
	case "abort":
		return kwAbort
	case "absolute":
		return kwAbsolute
	case "alter":
		return kwAlter
	case "at":
		return kwAt
	case "atomic":
		return kwAtomic
	case "begin":
		return kwBegin
	case "by":
		return kwBy
	case "call":
		return kwCall
	case "chain":
		return kwChain
	case "characteristics":
		return kwCharacteristics
	case "checkpoint":
		return kwCheckpoint
	case "close":
		return kwClose
	case "cluster":
		return kwCluster
	case "columns":
		return kwColumns
	case "comment":
		return kwComment
	case "commit":
		return kwCommit
	case "committed":
		return kwCommitted
	case "constraints":
		return kwConstraints
	case "copy":
		return kwCopy
	case "cube":
		return kwCube
	case "cursor":
		return kwCursor
	case "cycle":
		return kwCycle
	case "deallocate":
		return kwDeallocate
	case "declare":
		return kwDeclare
	case "delete":
		return kwDelete
	case "discard":
		return kwDiscard
	case "drop":
		return kwDrop
	case "escape":
		return kwEscape
	case "execute":
		return kwExecute
	case "explain":
		return kwExplain
	case "filter":
		return kwFilter
	case "first":
		return kwFirst
	case "function":
		return kwFunction
	case "global":
		return kwGlobal
	case "groups":
		return kwGroups
	case "hold":
		return kwHold
	case "import":
		return kwImport
	case "insert":
		return kwInsert
	case "isolation":
		return kwIsolation
	case "key":
		return kwKey
	case "last":
		return kwLast
	case "level":
		return kwLevel
	case "listen":
		return kwListen
	case "load":
		return kwLoad
	case "local":
		return kwLocal
	case "lock":
		return kwLock
	case "materialized":
		return kwMaterialized
	case "merge":
		return kwMerge
	case "move":
		return kwMove
	case "names":
		return kwNames
	case "next":
		return kwNext
	case "no":
		return kwNo
	case "notify":
		return kwNotify
	case "of":
		return kwOf
	case "operator":
		return kwOperator
	case "ordinality":
		return kwOrdinality
	case "over":
		return kwOver
	case "partition":
		return kwPartition
	case "passing":
		return kwPassing
	case "plans":
		return kwPlans
	case "prepare":
		return kwPrepare
	case "prepared":
		return kwPrepared
	case "procedure":
		return kwProcedure
	case "program":
		return kwProgram
	case "range":
		return kwRange
	case "read":
		return kwRead
	case "reassign":
		return kwReassign
	case "recursive":
		return kwRecursive
	case "refresh":
		return kwRefresh
	case "reindex":
		return kwReindex
	case "release":
		return kwRelease
	case "repeatable":
		return kwRepeatable
	case "replace":
		return kwReplace
	case "reset":
		return kwReset
	case "revoke":
		return kwRevoke
	case "role":
		return kwRole
	case "rollback":
		return kwRollback
	case "rollup":
		return kwRollup
	case "rows":
		return kwRows
	case "savepoint":
		return kwSavepoint
	case "schema":
		return kwSchema
	case "scroll":
		return kwScroll
	case "search":
		return kwSearch
	case "security":
		return kwSecurity
	case "sequences":
		return kwSequences
	case "serializable":
		return kwSerializable
	case "session":
		return kwSession
	case "set":
		return kwSet
	case "sets":
		return kwSets
	case "share":
		return kwShare
	case "show":
		return kwShow
	case "snapshot":
		return kwSnapshot
	case "start":
		return kwStart
	case "stdin":
		return kwStdin
	case "stdout":
		return kwStdout
	case "temp":
		return kwTemp
	case "temporary":
		return kwTemporary
	case "ties":
		return kwTies
	case "transaction":
		return kwTransaction
	case "truncate":
		return kwTruncate
	case "uncommitted":
		return kwUncommitted
	case "unlisten":
		return kwUnlisten
	case "unlogged":
		return kwUnlogged
	case "update":
		return kwUpdate
	case "vacuum":
		return kwVacuum
	case "varying":
		return kwVarying
	case "within":
		return kwWithin
	case "without":
		return kwWithout
	case "work":
		return kwWork
	case "write":
		return kwWrite
	case "xml":
		return kwXml
	case "zone":
		return kwZone
	}
	return kwNone
}
