// The commands: each adds itself to the command line and returns nothing; errors are thrown.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <string_view>

#include "app/planning.h"
#include "app/stages.h"
#include "plan/plan.h"

namespace nibble::app {

/// The options shared by all commands live as long as the command line; so do the commands' own.
void add_inspect(CLI::App& app, Common& common);
void add_measure(CLI::App& app, Common& common);
void add_plan(CLI::App& app, Common& common);
void add_quantize(CLI::App& app, Common& common);
void add_verify(CLI::App& app, Common& common);
void add_eval(CLI::App& app, Common& common);
void add_compare(CLI::App& app, Common& common);
void add_generate(CLI::App& app, Common& common);
void add_trace(CLI::App& app, Common& common);
void add_report(CLI::App& app, Common& common);
void add_card(CLI::App& app, Common& common);

/// A subcommand with --threads and a footer that shows an example; `action` runs when it was chosen and
/// parsed.
CLI::App* add_command(CLI::App& app, Common& common, const std::string& name, const std::string& what,
                      const std::string& example, std::function<void()> action);
/// Further options that several commands share.
/// Checks of an option's text that say what is wrong with it and leave help lines short.
CLI::Validator in_range(int64_t low, int64_t high);
/// `words`, of static storage, say the range: "from 0 to 1".
CLI::Validator number_in(double low, double high, std::string_view words);
CLI::Validator one_of(std::vector<std::string> words);
/// An option that takes a size (parse_size).
CLI::Option* add_size(CLI::App* command, const std::string& name, int64_t& bytes, const std::string& help);
/// `also`: what else this command takes for a model.
void add_model(CLI::App* command, std::string& model, const std::string& also = "");
void add_data(CLI::App* command, std::vector<std::string>& data, int64_t& window);
void add_max_new_tokens(CLI::App* command, int64_t& tokens);
void add_compute(CLI::App* command, Common& common);
CLI::Option* add_budget(CLI::App* command, std::string& budget);
void add_policy(CLI::App* command, std::string& budget, std::string& policy);
void add_calibration(CLI::App* command, CalibrationOptions& options);
void add_save_every(CLI::App* command, CalibrationOptions& options);
void add_weights(CLI::App* command, std::string& weights);
/// All of how plans are made but for the model, its inputs, and the budget.
void add_planning(CLI::App* command, PlanningOptions& options);
/// "VISION,TEXT" as numbers from 0; throws Error naming the option.
std::array<double, 2> parse_pair(const std::string& option, const std::string& text);
/// The same, "" for nothing.
std::optional<std::array<double, 2>> parse_weights(const std::string& text);
void add_json_flag(CLI::App* command, Common& common);

/// How the program was called, for nibble.json.
const std::string& command_text();

/// The default for policies that need a budget.
inline constexpr const char* kDefaultBudget = "10%";

/// The plan of a policy: budget filled in where the policy needs one, digest set.
records::Plan plan_for(const records::Measurements& measurements, const std::string& digest,
                       const std::string& policy, const std::string& budget,
                       const plan::Preferences& preferences);

/// Prints a result on stdout. Where its reader is gone the command ends without a word, as by SIGPIPE.
void print(const std::string& text);
/// The same after a command wrote `path`: where printing fails, the error says that the file or folder did
/// not.
void print_written(const std::string& path, const std::string& text);
void print_json(const io::Json& json);

/// Writes a record as its JSON file, and gives the digest of its bytes.
std::string write_record(const std::filesystem::path& path, const io::Json& record);
std::string record_digest(const io::Json& record);

}  // namespace nibble::app
